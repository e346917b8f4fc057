//! `tracecar doctor`: looks for what is wrong, and prints it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tracecar::config::{self, Flags, Sources};
use tracecar::doctor::{self, Check, State, Subject};

use super::ca::say;
use crate::{BAD_CONFIG, environment, read};

/// What is to be looked at.
#[derive(Args)]
pub struct Doctor {
    /// The configuration file that tracecar runs with.
    #[arg(long, value_name = "FILE", env = "TRACECAR_CONFIG")]
    config: Option<PathBuf>,
    /// The service, as `run` has it.
    #[arg(long, value_name = "URL", env = "TRACECAR_TO")]
    to: Option<String>,
    /// Where tracecar listens for callers, as `run` has it.
    #[arg(long, value_name = "ADDRESS", env = "TRACECAR_LISTEN")]
    listen: Option<String>,
    /// Admin pages of the running tracecar, such as http://127.0.0.1:9464 [default: as configured].
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Watch traffic for this long, such as 10s, in place of what was counted since tracecar started.
    #[arg(long, value_name = "TIME", value_parser = config::parse_duration)]
    listen_for: Option<Duration>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Looks, and prints what was seen.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let text = self.config.as_deref().map(read).transpose()?;
        let name = self.config.as_ref().map(|path| path.to_string_lossy().into_owned());
        // What `run` would take from these variables by its own flags.
        let flags = Flags {
            to: self.to,
            listen: self.listen,
            proxy: environment("TRACECAR_PROXY"),
            admin: environment("TRACECAR_ADMIN"),
            service: environment("TRACECAR_SERVICE"),
        };
        let sources = Sources {
            file: name.as_deref().zip(text.as_deref()),
            env: &environment,
            read: &config::read_file,
            flags: &flags,
            terminal: false,
        };
        let loaded = match config::load(&sources) {
            Ok(loaded) => loaded,
            Err(problems) => {
                eprintln!("{problems}");
                if self.json {
                    let advice = "`tracecar check FILE` says the same";
                    say(&doctor::json(&[Check::problem("config", problems.to_string(), advice)]))?;
                }
                return Ok(ExitCode::from(BAD_CONFIG));
            }
        };
        let subject = Subject {
            loaded: &loaded,
            source: name.as_deref().unwrap_or("the command line"),
            admin: self.admin.as_deref(),
            listen_for: self.listen_for,
            env: &environment,
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let checks = runtime.block_on(doctor::examine(&subject));
        // A name that is still being resolved is not waited for.
        runtime.shutdown_background();
        say(&if self.json { doctor::json(&checks) } else { doctor::text(&checks) })?;
        Ok(match doctor::worst(&checks) {
            State::Ok | State::Warning => ExitCode::SUCCESS,
            State::Problem => ExitCode::FAILURE,
        })
    }
}
