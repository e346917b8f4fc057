//! `tracecar diff`: what differs between two configuration files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tracecar::config::{self, Flags, Loaded};

use super::ca::say;
use super::check::{self, Over};
use crate::{BAD_CONFIG, read};

/// Which files are to be compared.
#[derive(Args)]
pub struct Diff {
    /// The file as it was.
    old: PathBuf,
    /// The file as it is to be.
    new: PathBuf,
    #[command(flatten)]
    over: Over,
}

impl Diff {
    /// Compares, and prints what differs.
    ///
    /// # Errors
    /// Where standard output cannot be written to.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let flags = self.over.flags();
        let (Some(old), Some(new)) = (usable(&self.old, &flags), usable(&self.new, &flags)) else {
            return Ok(ExitCode::from(BAD_CONFIG));
        };
        let changes = config::changes(&old, &new);
        let mut text = String::new();
        for change in &changes {
            match change.start_only {
                Some(reason) => writeln!(text, "{change} (at the next start: {reason})")?,
                None => writeln!(text, "{change} ({})", change.effect)?,
            }
        }
        say(&text)?;
        Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What a file comes to. Says why, where it cannot be used: exit status 1 is taken.
fn usable(file: &Path, flags: &Flags) -> Option<Loaded> {
    let text = read(file).map_err(|error| eprintln!("tracecar: {error:#}")).ok()?;
    check::load(file, &text, flags).map_err(|problems| eprintln!("{problems}")).ok()
}
