//! What the program takes of the machine: memory, descriptors, threads.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::program::Program;

/// What the program has, as `/proc` tells; all 0 where it does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    /// Resident memory in KiB (`VmRSS`), the program's own pages and those of files together.
    pub resident: u64,
    /// Of that, what the program has allocated (`RssAnon`), in KiB.
    pub allocated: u64,
    /// Open descriptors, without those of [`Self::asking`].
    pub descriptors: usize,
    /// Netlink sockets that the kernel is asked on: opened when they are needed and kept, as many as ask at a time.
    pub asking: usize,
    pub threads: u64,
}

/// How many lookups of processes there may be at a time (`AT_A_TIME` in src/net/process.rs).
pub const ASKING: usize = 2;

impl Footprint {
    pub fn of(program: &Program) -> Self {
        let folder = format!("/proc/{}", program.id());
        let status = std::fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
        };
        let netlink = std::fs::read_to_string(format!("{folder}/net/netlink")).unwrap_or_default();
        let netlink: HashSet<_> = netlink.lines().filter_map(|line| line.split_whitespace().last()).collect();
        let is_asking = |descriptor: &&String| {
            let inode = descriptor.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| netlink.contains(inode))
        };
        let descriptors = descriptors(program);
        let asking = descriptors.iter().filter(is_asking).count();
        Self {
            resident: number("VmRSS:"),
            allocated: number("RssAnon:"),
            descriptors: descriptors.len() - asking,
            asking,
            threads: number("Threads:"),
        }
    }

    /// The least of each (but the most of those that ask) within `time`, in which nothing is to go on. Freed pages go back a second after they were freed,
    /// and only while something happens: so the pages of the admin port are read meanwhile.
    pub fn settled(program: &Program, time: Duration) -> Self {
        let begun = Instant::now();
        let mut least = Self::of(program);
        while begun.elapsed() < time {
            program.metrics();
            std::thread::sleep(Duration::from_millis(250));
            let now = Self::of(program);
            least = Self {
                resident: least.resident.min(now.resident),
                allocated: least.allocated.min(now.allocated),
                descriptors: least.descriptors.min(now.descriptors),
                asking: least.asking.max(now.asking),
                threads: least.threads.min(now.threads),
            };
        }
        least
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resident, allocated, descriptors, asking, threads } = self;
        write!(
            f,
            "{resident} KiB resident, {allocated} KiB of it allocated; {descriptors} descriptors and {asking} for asking, \
             {threads} threads"
        )
    }
}

/// What the descriptors of the program are.
pub fn descriptors(program: &Program) -> Vec<String> {
    entries(program, "fd", |path| std::fs::read_link(path).map(|link| link.display().to_string()))
}

/// The names of its threads.
pub fn threads(program: &Program) -> Vec<String> {
    entries(program, "task", |path| std::fs::read_to_string(path.join("comm")))
}

fn entries(program: &Program, folder: &str, read: impl Fn(&Path) -> std::io::Result<String>) -> Vec<String> {
    let folder = std::fs::read_dir(format!("/proc/{}/{folder}", program.id())).into_iter().flatten();
    // What is gone by now is none of them.
    let mut all: Vec<_> = folder.flatten().filter_map(|entry| read(&entry.path()).ok()).collect();
    all.sort();
    all
}
