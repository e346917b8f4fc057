//! The command line: `tracecar run`, `check`, `diff`, `schema`, `doctor`, `ca` and `demo`.

mod commands;

use std::future::Future;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use commands::ca::{Ca, say};
use commands::check::Check;
use commands::diff::Diff;
use commands::doctor::Doctor;
use tracecar::app::{Again, App, Parts, Refused};
use tracecar::config::{self, Flags, Loaded, Sources};
use tracing::warn;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit status for a configuration that cannot be used (`EX_USAGE` of sysexits).
const BAD_CONFIG: u8 = 64;

/// A sidecar reverse proxy that traces services nobody may change.
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Stand beside a service and trace what goes in and out.
    #[command(after_help = "\
Examples:
  tracecar run --to http://127.0.0.1:3000
      Listen on port 8080, pass everything on to port 3000, and print traces on
      this terminal.
  export OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318
  tracecar run --to http://127.0.0.1:3000 --service shop
      Send the traces to a collector instead.
  OTEL_TRACES_EXPORTER=console tracecar run --to http://127.0.0.1:3000
      Print traces even if this is no terminal, as lines of JSON.
  tracecar run --to http://127.0.0.1:3000 --proxy 127.0.0.1:8081
      Trace what the service calls, too; it needs HTTP_PROXY and HTTPS_PROXY of
      http://127.0.0.1:8081 in its environment.
  tracecar run --config tracecar.yaml
      Take everything from a file. A flag beats the environment, which beats
      the file; --to and --listen replace all of the file's `inbound`.

Besides its own variables tracecar reads those of OpenTelemetry:
OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPORTER_OTLP_*, OTEL_BSP_*,
OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_TRACES_EXPORTER,
OTEL_PROPAGATORS, OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS, OTEL_SDK_DISABLED.
NO_COLOR turns colour off.

On SIGTERM or Ctrl-C tracecar lets requests finish, flushes, and exits with 0;
a second signal hurries it. Exit status: 0 stopped as told, 1 could not run,
2 the command line cannot be read, 64 the configuration cannot be used.")]
    Run(Run),
    /// Say everything that is wrong with a configuration file, with line, column and remedy.
    #[command(after_help = "\
Examples:
  tracecar check tracecar.yaml && echo fine
  tracecar check --deny-warnings tracecar.yaml
      In a pipeline, where nobody reads warnings.
  tracecar check --effective tracecar.yaml
      Print what would run, and where each value came from.

OpenTelemetry's variables are laid over the file, as `run` does; files that keys
name, such as admin.token_file, are read. Exit status: 0 the file can be used,
1 it cannot be read, 2 the command line cannot be read, 64 the file cannot be
used, or has warnings and --deny-warnings was given.")]
    Check(Check),
    /// Say what differs between two configuration files, in words.
    #[command(after_help = "\
Example:
  tracecar diff deployed.yaml tracecar.yaml
      timeouts.idle: 75s -> 30s (for new connections)

Compared is what the files come to here, with OpenTelemetry's variables laid
over both: an order of keys, a comment or a default written out is no change.
Values of secrets are not shown. Exit status: 0 no change, 1 changes, 2 the
command line cannot be read, 64 a file cannot be read or used.")]
    Diff(Diff),
    /// Print the JSON Schema of the configuration file, for editors and other tools.
    #[command(after_help = "\
Example:
  tracecar schema > tracecar.schema.json
      The first line of a file that is to be checked while it is written:
      # yaml-language-server: $schema=tracecar.schema.json

`tracecar check` knows more than a schema can say. Exit status: 0.")]
    Schema,
    /// Find out what is wrong: service, collector, destinations, a running tracecar, what the service forwards.
    #[command(after_help = "\
Examples:
  tracecar doctor --config tracecar.yaml
      Look at everything that tracecar depends on, and at the one that runs.
  tracecar doctor --config tracecar.yaml --listen-for 10s
      Also watch what the service forwards. Send it requests meanwhile.
  tracecar doctor --config tracecar.yaml --json | jq '.checks[] | select(.state != \"ok\")'

Run it where tracecar runs, with the same environment and as the same user.
The service and destinations are connected to, and sent nothing. The collector
is sent an export without spans.

Exit status: 0 all is well or there are only warnings, 1 there are problems or
the file cannot be read, 2 the command line cannot be read, 64 the configuration
cannot be used.")]
    Doctor(Doctor),
    /// Make a local CA for looking into TLS (outbound.intercept), and say what to do with it.
    #[command(after_help = "\
Example:
  tracecar ca --out /etc/tracecar
      Write local-ca.pem and local-ca.key there, and print the next steps.

Whoever has the key can pose as any site to whatever trusts this CA. Files that
are there are left alone. Exit status: 0 made, 1 not made, 2 the command line
cannot be read.")]
    Ca(Ca),
    /// Run three small services, each behind a tracecar of its own, and show their traces.
    #[command(after_help = "\
Examples:
  tracecar demo --for 10s
  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 tracecar demo
      Also send the traces to a collector.

All ports are chosen freely, on this host only.")]
    Demo {
        /// How long to go on, such as 10s or 2m; until Ctrl-C without it.
        #[arg(long = "for", value_name = "TIME", value_parser = config::parse_duration)]
        time: Option<Duration>,
    },
}

#[derive(Args)]
struct Run {
    /// The service: http://HOST:PORT, or h2c://HOST:PORT where it speaks HTTP/2 without TLS.
    #[arg(long, value_name = "URL", env = "TRACECAR_TO", help_heading = "Traffic")]
    to: Option<String>,
    /// Where to listen for its callers; needs --to [default: 0.0.0.0:8080].
    #[arg(long, value_name = "ADDRESS", env = "TRACECAR_LISTEN", help_heading = "Traffic")]
    listen: Option<String>,
    /// Where to listen for the service's own calls, as its HTTP_PROXY; 127.0.0.1:8081, say [default: nowhere].
    #[arg(long, value_name = "ADDRESS", env = "TRACECAR_PROXY", help_heading = "Traffic")]
    proxy: Option<String>,
    /// The service's name in traces [default: unknown_service].
    #[arg(long, value_name = "NAME", env = "TRACECAR_SERVICE", help_heading = "Telemetry")]
    service: Option<String>,
    /// Where to serve metrics and health, or `off` [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDRESS", env = "TRACECAR_ADMIN", help_heading = "Operation")]
    admin: Option<String>,
    /// A configuration file, see `config/tracecar.yaml`.
    #[arg(long, value_name = "FILE", env = "TRACECAR_CONFIG", help_heading = "Operation")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Check(check) => check.run(),
        Command::Diff(diff) => diff.run(),
        Command::Schema => schema(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Ca(ca) => ca.run(),
        Command::Demo { time } => demo(time),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("tracecar: {error:#}");
        ExitCode::FAILURE
    })
}

impl Run {
    fn run(self) -> anyhow::Result<ExitCode> {
        let Self { to, listen, proxy, service, admin, config: file } = self;
        let flags = Flags { to, listen, proxy, admin, service };
        let terminal = std::io::stdout().is_terminal();
        // From here on SIGHUP ends nobody, either.
        let (stop, cut) = signals()?;
        let text = file.as_deref().map(read).transpose()?;
        // A pipe can be read once.
        let file_again = file.clone().filter(|file| file.is_file());
        let again = {
            let (name, file) =
                (file.as_deref().map(|file| file.to_string_lossy().into_owned()), file_again.clone());
            // Flags and variables stay as they are for as long as the process lives; the file may change.
            move |first: bool| {
                let again = file
                    .as_deref()
                    .filter(|_| !first)
                    .map(|file| read_again(file, text.as_deref()))
                    .transpose()?;
                let text = again.as_ref().or(text.as_ref());
                load(name.as_deref().zip(text.map(String::as_str)), &flags, terminal)
            }
        };
        let loaded = match again(true) {
            Ok(loaded) => loaded,
            Err(Unloaded::Unreadable(error)) => return Err(error),
            Err(Unloaded::Wrong(problems)) => return refuse(&problems),
        };
        let set_level = log(&loaded.settings.startup.log);
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        raise_descriptor_limit();
        let parts = Parts {
            effective: loaded.effective.clone(),
            log: Some(Box::new(set_level)),
            ..Parts::new(loaded.settings.clone())
        };
        let load = Arc::new(move || again(false).map_err(Refused::from));
        let app = App::bind(Parts {
            again: Some(Again { start: loaded.clone(), now: loaded, file: file_again, load }),
            ..parts
        })?;
        app.run(stop, cut)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Why there are no settings.
enum Unloaded {
    Unreadable(anyhow::Error),
    Wrong(config::Problems),
}

impl From<Unloaded> for Refused {
    fn from(unloaded: Unloaded) -> Self {
        match unloaded {
            Unloaded::Unreadable(error) => {
                Self { why: format!("{error:#}"), files: Vec::new(), retry: false }
            }
            Unloaded::Wrong(problems) => {
                Self { why: problems.to_string(), files: problems.files().to_vec(), retry: false }
            }
        }
    }
}

fn load(file: Option<(&str, &str)>, flags: &Flags, terminal: bool) -> Result<Loaded, Unloaded> {
    config::load(&Sources { file, env: &environment, read: &config::read_file, flags, terminal })
        .map_err(Unloaded::Wrong)
}

/// Reads the file another time. One that is empty, where it was not at the start, was not meant: somebody is writing it.
fn read_again(file: &Path, at_start: Option<&str>) -> Result<String, Unloaded> {
    let text = config::read_file(file).with_context(|| format!("cannot read {}", file.display()));
    let text = text.map_err(Unloaded::Unreadable)?;
    match text.trim().is_empty() && at_start.is_some_and(|text| !text.trim().is_empty()) {
        true => Err(Unloaded::Unreadable(anyhow::anyhow!("{} is empty", file.display()))),
        false => Ok(text),
    }
}

fn schema() -> anyhow::Result<ExitCode> {
    say(&config::schema())?;
    Ok(ExitCode::SUCCESS)
}

fn demo(time: Option<Duration>) -> anyhow::Result<ExitCode> {
    drop(log("warn"));
    let (stop, _) = signals()?;
    let stop = async move {
        match time {
            Some(time) => tokio::select! {
                () = stop => {}
                () = tokio::time::sleep(time) => {}
            },
            None => stop.await,
        }
    };
    tracecar::demo::run(stop, &environment)?;
    Ok(ExitCode::SUCCESS)
}

fn refuse(problems: &config::Problems) -> anyhow::Result<ExitCode> {
    eprintln!("{problems}");
    Ok(ExitCode::from(BAD_CONFIG))
}

fn read(file: &Path) -> anyhow::Result<String> {
    config::read_once(file).with_context(|| format!("cannot read {}", file.display()))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Sends our own log to standard error, so that standard output is for traces and the access log. Returns what sets its level.
fn log(level: &str) -> impl Fn(&str) + Send + use<> {
    let targets = |level: &str| level.parse::<Targets>().unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    let (filter, handle) = reload::Layer::new(targets(level));
    tracing_subscriber::registry().with(lines).with(filter).init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, message, "a task panicked; this is a bug in tracecar, please report it");
    }));
    // It fails only when the registry is gone, and then nobody logs.
    move |level| drop(handle.reload(targets(level)))
}

/// Each connection takes two descriptors, and the soft limit is often 1024 for the sake of programs that `select`.
fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
            warn!(%error, "cannot raise the limit of open descriptors");
        }
    }
}

/// The first signal to stop, and the second. Both are listened for from here on: one that came earlier would end the
/// process without a word, and one that came between two listeners would be lost. This is done on a thread of its
/// own, since the first may come before there is any runtime.
fn signals() -> anyhow::Result<(impl Future<Output = ()>, impl Future<Output = ()>)> {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (cut, cut_short) = tokio::sync::oneshot::channel();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::new().context("cannot listen for signals")?
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                for told in [stop, cut] {
                    signals.next().await;
                    let _ = told.send(());
                }
            });
        })
        .context("cannot start")?;
    // A sender that is gone without a word means that its signal never comes.
    let wait = |receiver: tokio::sync::oneshot::Receiver<()>| async move {
        if receiver.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    Ok((wait(stopped), wait(cut_short)))
}

/// What tells the process to stop: SIGTERM and Ctrl-C.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Heard by nobody before there is something to be read again; but unheard of, it would end the process.
    _hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on. Has to be called in a runtime.
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt, _hangup: signal(SignalKind::hangup())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What tells the process to stop: Ctrl-C.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
