//! `tracecar check`: everything that is wrong with a file, or what it comes to.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tracecar::config::{self, Flags, Loaded, Problems, Sources};

use super::ca::say;
use crate::{BAD_CONFIG, environment, read, refuse};

/// Which file is to be looked at, and how.
#[derive(Args)]
pub struct Check {
    /// The file.
    file: PathBuf,
    /// Print what would run as YAML, with where each value came from. Secrets are masked.
    #[arg(long)]
    effective: bool,
    /// Take warnings for problems.
    #[arg(long)]
    deny_warnings: bool,
    #[command(flatten)]
    over: Over,
}

/// Flags of `run` that are laid over a file.
#[derive(Args)]
pub struct Over {
    /// The service, as `run` has it.
    #[arg(long, value_name = "URL", env = "TRACECAR_TO", help_heading = "Over the file")]
    to: Option<String>,
    /// Where to listen for its callers, as `run` has it.
    #[arg(long, value_name = "ADDRESS", env = "TRACECAR_LISTEN", help_heading = "Over the file")]
    listen: Option<String>,
    /// Where to listen for the service's own calls, as `run` has it.
    #[arg(long, value_name = "ADDRESS", env = "TRACECAR_PROXY", help_heading = "Over the file")]
    proxy: Option<String>,
    /// The service's name, as `run` has it.
    #[arg(long, value_name = "NAME", env = "TRACECAR_SERVICE", help_heading = "Over the file")]
    service: Option<String>,
    /// Where to serve metrics and health, as `run` has it.
    #[arg(long, value_name = "ADDRESS", env = "TRACECAR_ADMIN", help_heading = "Over the file")]
    admin: Option<String>,
}

impl Over {
    pub fn flags(self) -> Flags {
        let Self { to, listen, proxy, admin, service } = self;
        Flags { to, listen, proxy, admin, service }
    }
}

/// What the text of a file comes to here, with the variables of the environment.
pub fn load(name: &Path, text: &str, flags: &Flags) -> Result<Loaded, Problems> {
    let name = name.to_string_lossy();
    config::load(&Sources {
        file: Some((&name, text)),
        env: &environment,
        read: &config::read_file,
        flags,
        terminal: false,
    })
}

impl Check {
    /// Looks, and prints what was found.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let text = read(&self.file)?;
        let loaded = match load(&self.file, &text, &self.over.flags()) {
            Ok(loaded) => loaded,
            Err(problems) => return refuse(&problems),
        };
        let remarks = match tracecar::app::look_at_files(&loaded.settings) {
            Ok(remarks) => remarks,
            Err(error) => {
                eprintln!("{}: {error:#}", self.file.display());
                return Ok(ExitCode::from(BAD_CONFIG));
            }
        };
        let warnings: Vec<_> = loaded.warnings.iter().chain(&remarks).collect();
        for warning in &warnings {
            eprintln!("warning: {warning}");
        }
        let denied = self.deny_warnings && !warnings.is_empty();
        match (self.effective, denied) {
            (true, _) => say(&loaded.explained())?,
            (false, true) => {
                eprintln!("{}: has warnings, which --deny-warnings forbids", self.file.display())
            }
            (false, false) => say(&format!("{}: can be used\n", self.file.display()))?,
        }
        Ok(if denied { ExitCode::from(BAD_CONFIG) } else { ExitCode::SUCCESS })
    }
}
