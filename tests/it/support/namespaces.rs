//! Two network namespaces and a wire between them: `app`, where the service and its sidecar are, and `world`.
//!
//! They need root and `ip`, so a test asks for them with [`Namespaces::or_skip`] and ends if there are none.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The address of the app's end of the wire.
pub const APP_V4: &str = "10.213.0.2";
pub const APP_V6: &str = "fd13::2";
/// Addresses in the world, on the other side of its end of the wire.
pub const WORLD_V4: &str = "198.51.100.10";
pub const WORLD_V6: &str = "2001:db8::10";

/// How all of them are called, so that those of a run that was killed can be told from others.
const PREFIX: &str = "tracecar-it";

/// Distinguishes the namespaces of one process.
static COUNT: AtomicU32 = AtomicU32::new(0);

#[derive(Clone, Copy, Debug)]
pub enum Side {
    App,
    World,
}

/// They are removed when this is dropped, with everything in them.
pub struct Namespaces {
    app: String,
    world: String,
}

impl Namespaces {
    /// New ones, or a line on the terminal that says that the running test was skipped, and why. The tools are looked
    /// for as well.
    pub fn or_skip(tools: &[&str]) -> Option<Self> {
        let missing = tools.iter().find(|tool| !is_there(tool)).map(|tool| format!("there is no {tool}"));
        match missing.map_or_else(Self::new, Err) {
            Ok(namespaces) => Some(namespaces),
            Err(why) => {
                skipped(&why);
                None
            }
        }
    }

    fn new() -> Result<Self, String> {
        remove_those_of_the_dead();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("{PREFIX}-{}-{count}-{side}", std::process::id());
        let made = Self { app: name("app"), world: name("world") };
        let (app, world) = (&*made.app, &*made.world);
        for line in [
            format!("netns add {app}"),
            format!("netns add {world}"),
            // The names are theirs alone: both ends are made where they belong.
            format!("link add eth0 netns {app} type veth peer name eth0 netns {world}"),
            format!("-n {app} link set lo up"),
            format!("-n {world} link set lo up"),
            format!("-n {app} addr add {APP_V4}/24 dev eth0"),
            format!("-n {world} addr add 10.213.0.1/24 dev eth0"),
            format!("-n {world} addr add {WORLD_V4}/32 dev lo"),
            // Without the search for duplicates, during which an address cannot be used.
            format!("-n {app} addr add {APP_V6}/64 dev eth0 nodad"),
            format!("-n {world} addr add fd13::1/64 dev eth0 nodad"),
            format!("-n {world} addr add {WORLD_V6}/128 dev lo nodad"),
            format!("-n {app} link set eth0 up"),
            format!("-n {world} link set eth0 up"),
            format!("-n {app} route add default via 10.213.0.1"),
            format!("-n {app} -6 route add default via fd13::1"),
        ] {
            ip(&line)?;
        }
        Ok(made)
    }

    /// A command that runs on one side, as that user.
    pub fn command(&self, side: Side, user: u32, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(side), "setpriv", "--clear-groups"]);
        command.arg(format!("--reuid={user}")).arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a command on one side as root, to its end.
    pub fn run_in(&self, side: Side, words: &[&str]) -> Output {
        self.command(side, 0, words[0]).args(&words[1..]).output().expect("ip is there")
    }

    /// Calls `action` on one side: the sockets that it makes stay there.
    pub fn inside<T: Send>(&self, side: Side, action: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name(side))).expect("the namespace is there");
        // A thread is in a namespace, not a process; this one ends with the action.
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("it can be entered");
                action()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn name(&self, side: Side) -> &str {
        match side {
            Side::App => &self.app,
            Side::World => &self.world,
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.app, &self.world] {
            remove(name);
        }
    }
}

/// Tells everybody who watches that the running test does nothing.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // What goes through `eprintln!` is shown of failed tests only.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED {test}: {why}");
}

/// Whether a program can be found.
pub fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

fn ip(line: &str) -> Result<(), String> {
    let output =
        Command::new("ip").args(line.split(' ')).output().map_err(|error| format!("no ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // Without the rights or the kernel for it there is no test; with them it has to work.
    let impossible = ["not permitted", "denied", "not supported", "Unknown device type"];
    assert!(impossible.iter().any(|words| said.contains(words)), "`ip {line}` said: {said}");
    Err(format!("`ip {line}` said: {said}"))
}

fn remove(name: &str) {
    // One that was never made, or that somebody else has cleared away, is none to remove.
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
}

/// A run that is killed leaves its namespaces behind; the next one clears them away.
fn remove_those_of_the_dead() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let process = rest.split('-').nth(1).unwrap_or_default();
        if !process.is_empty() && !std::path::Path::new("/proc").join(process).exists() {
            remove(&name);
        }
    }
}
