//! Who holds a socket, by `/proc/<pid>/fd`.
//!
//! Looking through all processes of a machine takes milliseconds, through those of one server microseconds. So the *family* is
//! looked through first: processes that were found to own a socket of the app, and those that share a socket with one of them, as
//! the master and the workers of a prefork server share their listener. What they hold is read each time. Next
//! come their *relatives*, of the same session (or of the same parent, where the session began outside of our namespace): a worker may
//! have closed all that it shared.
//! A process that is gone holds nothing, and one that has got its number since holds only what it holds: an
//! answer is never older than the question, only the choice of whom to look at.
//!
//! The family is learnt by looking at all processes: when somebody is not found in it, and every ten seconds besides. Processes
//! that have begun since the last question are looked at before each, since servers replace their workers all the time, and since
//! a worker that forks shares its sockets: the kernel says what number it gave last, so there are seldom any.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags};

use super::{Failure, in_time};

/// Between two looks at all processes, at the least. After each that has not found what it was for, twice as long, for up
/// to [`MAX_PAUSE`]: it may be that nothing can be seen.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(64);

/// Between two looks that nobody has asked for.
const REFRESH: Duration = Duration::from_secs(10);

/// Processes of the family. A server of more is looked through in part; what is not found there is not found.
const MAX_MEMBERS: usize = 512;

/// Numbers given since the last question that are looked at one by one. Where there are more, all processes are listed.
const A_FEW: u32 = 32;

/// Processes known to own sockets of the app: from them the family is learnt.
const MAX_OWNERS: usize = 64;

/// The processes that are looked at first.
#[derive(Debug, Default)]
pub(super) struct Family {
    state: Mutex<State>,
    /// All processes have been looked at.
    looked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<u32>,
    relatives: Vec<u32>,
    owners: Vec<Owner>,
    /// What the owners held when all were looked at.
    sockets: HashSet<u64>,
    /// The kin of the owners.
    kin: HashSet<Kin>,
    /// All processes that have been looked at, of the family or not.
    seen: HashSet<u32>,
    /// The latest number that was given when new processes were looked for.
    latest: Option<u32>,
    looked_at: Option<Instant>,
    pause: Duration,
    looking: bool,
}

/// A process, and when it began: numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    process: u32,
    began: u64,
}

impl Family {
    /// The one process that holds the socket.
    pub(super) fn owner(&self, inode: u64, until: Instant) -> Result<u32, Failure> {
        self.look_at_new(false, until)?;
        if let Some(process) = self.among_members(inode, until)? {
            return Ok(process);
        }
        if self.look_at_new(true, until)?
            && let Some(process) = self.among_members(inode, until)?
        {
            return Ok(process);
        }
        if self.look_at_relatives(inode, until)?
            && let Some(process) = self.among_members(inode, until)?
        {
            return Ok(process);
        }
        if !self.begin_if(|state, now| state.looked_at.is_none_or(|at| now.duration_since(at) >= state.pause))
        {
            // When a server begins to work, its workers are all asked for at once.
            return match self.wait_for_look(until) {
                true => self.among_members(inode, until)?.ok_or(Failure::NotFound),
                false => Err(Failure::NotFound),
            };
        }
        // This goes on also when nobody waits for it any more: the next question will be answered sooner.
        let found = self.look_at_all(Some(inode));
        in_time(until)?;
        if found {
            self.among_members(inode, until)?.ok_or(Failure::NotFound)
        } else {
            Err(Failure::NotFound)
        }
    }

    /// Whether somebody else of the family holds one of `inodes`.
    pub(super) fn shares(&self, process: u32, inodes: &[u64], until: Instant) -> Result<bool, Failure> {
        self.look_at_new(false, until)?;
        for other in self.members().into_iter().filter(|other| *other != process) {
            in_time(until)?;
            if sockets_of(other).any(|inode| inodes.contains(&inode)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks at all processes if that was long ago. Takes as long as it takes.
    pub(super) fn refresh(&self) {
        if self.begin_if(State::is_old) {
            self.look_at_all(None);
        }
    }

    /// Whether it is time for [`Family::refresh`].
    pub(super) fn is_old(&self) -> bool {
        let state = self.lock();
        !state.looking && state.is_old(Instant::now())
    }

    fn begin_if(&self, due: impl Fn(&State, Instant) -> bool) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        if state.looking || !due(&state, now) {
            return false;
        }
        (state.looking, state.looked_at) = (true, Some(now));
        true
    }

    /// Waits for somebody else's look at all processes; `false` if there is none, or it does not end in time.
    fn wait_for_look(&self, until: Instant) -> bool {
        let state = self.lock();
        if !state.looking {
            return false;
        }
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.looked.wait_timeout_while(state, left, |state| state.looking);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.looking
    }

    fn among_members(&self, inode: u64, until: Instant) -> Result<Option<u32>, Failure> {
        let mut found = None;
        for process in self.members() {
            in_time(until)?;
            if sockets_of(process).any(|held| held == inode) && found.replace(process).is_some() {
                return Err(Failure::Shared);
            }
        }
        if let Some(process) = found {
            self.lock().note_owner(process);
        }
        Ok(found)
    }

    /// Looks at the processes that have begun since that was done; says if any is of the family. `closely`: also at those
    /// that had no socket then, and without relying on numbers being given in their order.
    fn look_at_new(&self, closely: bool, until: Instant) -> Result<bool, Failure> {
        let latest = latest();
        let new: Vec<u32> = {
            let state = self.lock();
            if state.owners.is_empty() || (!closely && latest == state.latest) {
                return Ok(false);
            }
            match (state.latest, latest) {
                (Some(before), Some(latest))
                    if !closely && (1..=A_FEW).contains(&latest.wrapping_sub(before)) =>
                {
                    (before + 1..=latest).filter(|process| leads(*process)).collect()
                }
                _ => all().filter(|process| !state.seen.contains(process)).collect(),
            }
        };
        let mut joined = false;
        for process in new {
            in_time(until)?;
            let sockets: Vec<u64> = sockets_of(process).collect();
            let kin = Stat::of(process).and_then(|stat| stat.kin());
            let mut state = self.lock();
            let related = kin.is_some_and(|kin| state.kin.contains(&kin))
                || sockets.iter().any(|inode| state.sockets.contains(inode));
            if related && !sockets.is_empty() {
                state.join(process);
                joined = true;
            }
            // One that has none may be about to have some.
            if !sockets.is_empty() {
                state.seen.insert(process);
            }
        }
        self.lock().latest = latest;
        Ok(joined)
    }

    /// Looks for the socket among the relatives; who holds it joins the family.
    fn look_at_relatives(&self, inode: u64, until: Instant) -> Result<bool, Failure> {
        let relatives = self.lock().relatives.clone();
        let mut joined = false;
        for process in relatives {
            in_time(until)?;
            if sockets_of(process).any(|held| held == inode) {
                self.lock().join(process);
                joined = true;
            }
        }
        Ok(joined)
    }

    /// Learns the family anew; says if somebody holds `asked`.
    fn look_at_all(&self, asked: Option<u64>) -> bool {
        let latest = latest();
        let held: Vec<Held> = all().map(Held::by).filter(|held| !held.sockets.is_empty()).collect();
        let mut state = self.lock();
        state.owners.retain(|owner| Stat::of(owner.process).is_some_and(|stat| stat.began == owner.began));
        let mut found = false;
        for held in &held {
            if asked.is_some_and(|asked| held.sockets.contains(&asked)) {
                state.note_owner(held.process);
                found = true;
            }
        }
        let State { owners, sockets, kin, members, relatives, seen, pause, looking, .. } = &mut *state;
        let owns = |held: &&Held| owners.iter().any(|owner| owner.process == held.process);
        *sockets = held.iter().filter(owns).flat_map(|held| held.sockets.iter().copied()).collect();
        *kin = held.iter().filter(owns).filter_map(|held| held.kin).collect();
        let (family, others): (Vec<_>, Vec<_>) =
            held.iter().partition(|held| held.sockets.iter().any(|inode| sockets.contains(inode)));
        *members = family.iter().map(|held| held.process).take(MAX_MEMBERS).collect();
        let related = |held: &&Held| held.kin.is_some_and(|of| kin.contains(&of));
        *relatives = others.into_iter().filter(related).map(|held| held.process).take(MAX_MEMBERS).collect();
        *seen = held.iter().map(|held| held.process).collect();
        if asked.is_some() {
            *pause = if found { PAUSE } else { (*pause * 2).clamp(PAUSE, MAX_PAUSE) };
        }
        *looking = false;
        state.latest = latest;
        self.looked.notify_all();
        found
    }

    fn members(&self) -> Vec<u32> {
        self.lock().members.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_old(&self, now: Instant) -> bool {
        // Where nobody was found, nobody can be shared with.
        !self.owners.is_empty() && self.looked_at.is_none_or(|at| now.duration_since(at) >= REFRESH)
    }

    fn note_owner(&mut self, process: u32) {
        if self.owners.iter().any(|owner| owner.process == process) {
            return;
        }
        let Some(stat) = Stat::of(process) else { return };
        self.kin.extend(stat.kin());
        if self.owners.len() == MAX_OWNERS {
            self.owners.remove(0);
        }
        self.owners.push(Owner { process, began: stat.began });
    }

    fn join(&mut self, process: u32) {
        if self.members.contains(&process) {
            return;
        }
        if self.members.len() == MAX_MEMBERS {
            // Whoever has been here for long is the likeliest to be gone.
            self.members.remove(0);
        }
        self.members.push(process);
    }
}

/// All processes but our own: whoever stands in front of itself is a test or a demo, and we hold the most sockets of all.
pub(super) fn all() -> impl Iterator<Item = u32> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |process| *process != own)
}

/// The inodes of the sockets that a process holds; none if it is gone or we may not look.
///
/// Each question reads some hundred links: by their names in an open directory, so that no path is walked for each.
pub(super) fn sockets_of(process: u32) -> impl Iterator<Item = u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(format!("/proc/{process}/fd"), flags, Mode::empty()).ok();
    let entries = directory.as_ref().and_then(|directory| Dir::read_from(directory).ok());
    let mut target = Vec::new();
    entries.into_iter().flatten().filter_map(move |entry| {
        let directory = directory.as_ref()?;
        let link =
            rustix::fs::readlinkat(directory, entry.ok()?.file_name(), std::mem::take(&mut target)).ok()?;
        let inode = link.to_str().ok().and_then(inode);
        target = link.into_bytes();
        inode
    })
}

/// `socket:[123]`.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// What a process held when it was looked at.
struct Held {
    process: u32,
    sockets: Vec<u64>,
    kin: Option<Kin>,
}

impl Held {
    fn by(process: u32) -> Self {
        let kin = Stat::of(process).and_then(|stat| stat.kin());
        Self { process, sockets: sockets_of(process).collect(), kin }
    }
}

/// What processes of one server have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kin {
    Session(u32),
    Parent(u32),
}

/// What seldom or never changes about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    session: u32,
    /// In the kernel's ticks since the machine began.
    began: u64,
}

impl Stat {
    /// `None` if the process is gone.
    fn of(process: u32) -> Option<Self> {
        Self::read(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    fn read(stat: &str) -> Option<Self> {
        // The name is in brackets and may hold anything; behind it are the third field and the others.
        let (_, behind) = stat.rsplit_once(')')?;
        let mut fields = behind.split_ascii_whitespace();
        Some(Self {
            parent: fields.nth(1)?.parse().ok()?,
            session: fields.nth(1)?.parse().ok()?,
            began: fields.nth(15)?.parse().ok()?,
        })
    }

    /// 0 is any session, and any parent, outside of our namespace; and what has lost its parent has process 1.
    fn kin(&self) -> Option<Kin> {
        match (self.session, self.parent) {
            (0, 0 | 1) => None,
            (0, parent) => Some(Kin::Parent(parent)),
            (session, _) => Some(Kin::Session(session)),
        }
    }
}

/// The number that was given last, to a process or a thread.
fn latest() -> Option<u32> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_ascii_whitespace().next_back()?.parse().ok()
}

/// Whether the number is that of a process; threads have such numbers, too, and hold what their process holds.
fn leads(number: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{number}/status")) else { return false };
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    number != std::process::id() && group.is_some_and(|group| group.trim().parse() == Ok(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_beginning_and_a_session_until_it_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (ours, its) = (Stat::of(std::process::id()).unwrap(), Stat::of(child.id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ours.session, its.session);
        assert!(ours.began <= its.began, "{ours:?} {its:?}");
        assert_eq!(Stat::of(child.id()), None);
    }

    #[test]
    fn a_process_may_have_any_name() {
        let line = "77 (a) b (c)) S 1 77 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 9876 1 2 3\n";
        assert_eq!(Stat::read(line), Some(Stat { parent: 1, session: 42, began: 9876 }));
        assert_eq!(Stat::read("77 (a) S 1"), None);
    }

    #[test]
    fn a_session_makes_kin_and_so_does_a_parent_where_no_session_is_to_be_seen() {
        let kin = |parent, session| Stat { parent, session, began: 1 }.kin();
        assert_eq!(kin(5, 42), kin(6, 42));
        assert_ne!(kin(5, 42), kin(5, 43));
        assert_eq!(kin(5, 0), kin(5, 0));
        assert_ne!(kin(5, 0), kin(6, 0));
        assert_ne!(kin(5, 0), kin(6, 5), "a number of a session is none of a process");
        assert_eq!((kin(0, 0), kin(1, 0)), (None, None));
    }

    #[test]
    fn threads_are_not_processes() {
        assert!(!leads(std::process::id()), "we do not ask about ourselves");
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let mut child = child.unwrap();
        assert!(leads(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        let id = std::thread::spawn(|| std::fs::read_link("/proc/thread-self").unwrap()).join().unwrap();
        let thread = id.file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert!(!leads(thread));
    }

    #[test]
    fn a_search_that_finds_nobody_is_not_repeated_at_once() {
        let family = Family::default();
        let until = Instant::now() + Duration::from_secs(30);
        assert!(matches!(family.owner(u64::MAX, until), Err(Failure::NotFound)));
        let looked_at = family.lock().looked_at;
        assert!(looked_at.is_some());
        assert!(matches!(family.owner(u64::MAX, until), Err(Failure::NotFound)));
        assert_eq!(family.lock().looked_at, looked_at);
        assert_eq!(family.lock().pause, PAUSE);
    }

    #[test]
    fn an_owner_whose_number_was_used_again_is_forgotten() {
        let family = Family::default();
        let process = std::process::id();
        family.lock().owners.push(Owner { process, began: 1 });
        family.look_at_all(None);
        assert_eq!(family.lock().owners, []);
    }
}
