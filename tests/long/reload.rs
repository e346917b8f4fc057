//! The file changes under load, and nobody notices: two hundred reloads, of which fifty are of files that cannot be used,
//! while requests come at an even pace, streams go on and calls go out.
//!
//! Each change is one row of [`table`]. After each of them, and after each file that was refused, [`probe`] compares what
//! callers and services see with what [`model`] says; spans and log lines are judged when the run is over. The program
//! is the built one, and everything is looked at from outside.
//!
//! `TRACECAR_LONG_RELOADS=restart` starts the program anew for each change, without traffic: that tells a mistake in the
//! table from one in reloading. `off` changes nothing at all.

mod collectors;
mod eras;
mod http;
mod looks;
mod model;
mod probe;
mod service;
mod summary;
mod table;
mod traffic;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use self::collectors::Collectors;
use self::eras::Eras;
use self::http::{Answer, Connection, Failure};
use self::looks::{Scene, eventually};
use self::model::{Model, Places};
use self::probe::Prober;
use self::summary::{Rest, Tally};
use self::table::{FAULTS, Fault, Look, State, at_once, rows, walk};
use self::traffic::{Moving, Traffic};
use crate::support::PATIENCE;
use crate::support::origin::Nowhere;
use crate::support::page::Page;
use crate::support::program::{File, Program, Start};
use crate::{alone, phase};

/// Time from one reload to the next, if looking at what it did takes no longer.
const INTERVAL: Duration = Duration::from_millis(250);

/// After so many reloads, of all keys between them, what is opened once is open, and memory is looked at.
const FIRST: usize = 20;

/// And again after so many more.
const REST: usize = 100;

/// How much more memory the program may have at the end of a whole run, in percent. Some comes in the first minute of any traffic.
const GROWTH: f64 = 5.0;

/// The same for a run that is too short to tell that from a leak.
const GROWTH_IF_SHORT: f64 = 20.0;

/// How soon a file is noticed that nobody has told the program of. A second is promised; a busy machine gets more.
const NOTICED: Duration = Duration::from_secs(5);

/// What happens at a change.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Reload,
    Restart,
    Nothing,
}

/// Who says that the file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// `POST /-/reload`.
    Post,
    /// SIGHUP.
    Signal,
    /// Nobody: the file is watched.
    Watch,
}

#[test]
fn reloads_under_load_disturb_nobody_and_lose_nothing() {
    let _alone = alone();
    let how = match std::env::var("TRACECAR_LONG_RELOADS").as_deref() {
        Ok("restart") => How::Restart,
        Ok("off") => How::Nothing,
        _ => How::Reload,
    };
    // As many as show a bit of everything, at least.
    let steps = ((phase().as_secs_f64() / 60.0 * 200.0) as usize).max(2 * FIRST);
    let mut run = Run::start(how);
    // Connections, threads and pools come to be what they will be.
    std::thread::sleep((phase() / 12).min(Duration::from_secs(5)));
    run.check("at the beginning");

    let rows = rows();
    let mut due = Instant::now();
    let mut pace = || {
        // This is the pace, not a wait for something to happen.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due = due.max(Instant::now() - INTERVAL) + INTERVAL;
    };
    for (number, state) in at_once(&rows, FIRST / 2).iter().enumerate() {
        pace();
        run.change(&format!("all at once, {number}"), state, Way::Post);
        pace();
        run.back(&format!("none at all, {number}"));
    }
    let steps = steps - FIRST;
    let mut changes = walk(&rows, steps).into_iter().peekable();
    let mut refused = 0;
    for step in 0..steps {
        if step % REST == 0 {
            run.rest(&format!("after {} reloads", FIRST + step));
        }
        pace();
        let unseen = run.model.is("admin.enabled", "false");
        let way = match step {
            _ if unseen => Way::Signal,
            _ if step % 10 == 9 => Way::Watch,
            _ if step % 7 == 3 => Way::Signal,
            _ => Way::Post,
        };
        // Without the admin pages nobody could say that a file was refused.
        let (row, state) = if !unseen && refused * steps < (step + 1) * (FIRST + steps) / 4 {
            let Some((_, state)) = changes.peek() else { break };
            let fault = &FAULTS[refused % FAULTS.len()];
            refused += 1;
            run.refuse(&format!("{step} {}", fault.0), state, fault, way);
            continue;
        } else {
            changes.next().expect("the walk is as long as the run")
        };
        run.tally.rows.insert(rows[row].name);
        let label =
            format!("{step} {} {:?}", rows[row].name, state.iter().map(|(_, to)| *to).collect::<Vec<_>>());
        run.change(&label, &state, way);
        run.look(&label, rows[row].look);
    }
    run.finish();
}

/// The program, all that is around it, and what is known of it.
struct Run {
    how: How,
    places: Places,
    file: File,
    /// There all the time, but for a moment between two starts.
    program: Option<Program>,
    traffic: Option<Traffic>,
    proxy: Moving,
    /// Whether event streams end.
    over: Arc<AtomicBool>,
    collectors: Collectors,
    prober: Prober,
    model: Arc<Model>,
    eras: Eras,
    late: Vec<(String, JoinHandle<Result<(), String>>)>,
    log_lines: usize,
    complaints: Vec<String>,
    tally: Tally,
    /// What programs have said that ended.
    said: (Vec<String>, Vec<String>),
    _taken: TcpListener,
    _nobody: Nowhere,
    _folder: tempfile::TempDir,
}

impl Run {
    fn start(how: How) -> Self {
        let mut places = Places::default();
        let over = Arc::new(AtomicBool::new(false));
        for name in ["alpha", "beta", "gamma", "delta"] {
            places.put(name, service::start(name, &over).address);
        }
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        places.put("taken", taken.local_addr().expect("it is bound"));
        let nobody = Nowhere::new();
        places.put("nobody", nobody.address);
        let collectors = Collectors::start(&mut places);
        for name in [
            "main",
            "main-more",
            "main-dead",
            "main-secure",
            "proxy",
            "proxy-moved",
            "mapped",
            "mapped-more",
            "transparent",
            "admin",
            "admin-moved",
        ] {
            places.put_port(name);
        }
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let name = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        places.put("access-log", name("access.log"));
        places.put("header", name("header"));
        std::fs::write(name("header"), "secret\n").expect("it is writable");
        let made = Start::new(["ca", "--out", &name("")]).end();
        assert_eq!(made.code(), Some(0), "certificates are made: {:?}", made.stderr);
        places.put("ca", name("local-ca.pem"));
        places.put("ca-key", name("local-ca.key"));

        let model = Arc::new(Model::base(&places));
        let file = File::new(&model.yaml());
        let began = Instant::now();
        let program = Start::new(["run", "--config", file.name()]).run();
        let mut eras = Eras::default();
        eras.add("the start", model.clone(), began);
        let proxy: Moving = Arc::new(RwLock::new(places.address("proxy")));
        let (main, mapped, callee) =
            (places.address("main"), places.address("mapped"), places.address("gamma"));
        let traffic = (how != How::Restart).then(|| Traffic::start(main, &proxy, mapped, callee));
        Self {
            how,
            places,
            file,
            program: Some(program),
            traffic,
            proxy,
            over,
            collectors,
            prober: Prober::default(),
            model,
            eras,
            late: Vec::new(),
            log_lines: 0,
            complaints: Vec::new(),
            tally: Tally::default(),
            said: (Vec::new(), Vec::new()),
            _taken: taken,
            _nobody: nobody,
            _folder: folder,
        }
    }

    fn program(&self) -> &Program {
        self.program.as_ref().expect("it runs")
    }

    /// Sets keys, and waits until the program goes by them.
    fn change(&mut self, label: &str, state: &State, way: Way) {
        let unseen = state.contains(&("admin.enabled", "false"));
        // A program that is started anew without its pages does not say that it is there.
        if self.how == How::Nothing || self.how == How::Restart && unseen {
            return self.check(label);
        }
        let mut model = Model::clone(&self.model);
        for (key, value) in state {
            model.set(key, &self.places.fill(value));
        }
        self.become_(label, model, way);
    }

    fn become_(&mut self, label: &str, model: Model, way: Way) {
        let effective = model.effective();
        let proxy = self.proxy.clone();
        // Callers would not know where it is while it moves.
        let moving = (model.value("outbound.proxy") != self.model.value("outbound.proxy"))
            .then(|| proxy.write().expect("nobody panics with it"));
        let written = Instant::now();
        self.write(&model.yaml(), way);
        let outcome = match (self.how, way) {
            (How::Restart, _) => self.restart(),
            (_, Way::Post) => self.post().and_then(|answer| match answer.status {
                200 if answer.body.trim().is_empty() => {
                    Err("the answer does not say what changed".to_owned())
                }
                200 => Ok(()),
                status => Err(format!("answered with {status}: {}", answer.body)),
            }),
            (_, Way::Signal | Way::Watch) => {
                if way == Way::Signal {
                    self.hang_up();
                }
                let admin = model.value("admin.listen").parse().expect("an address");
                let applied = || match model.value("admin.enabled") {
                    "false" => Connection::to(admin).is_err(),
                    _ => shown(admin).is_ok_and(|shown| shown == effective),
                };
                if eventually(applied) { Ok(()) } else { Err("/config does not come to show it".to_owned()) }
            }
        };
        let took = written.elapsed();
        self.tally.reloaded(way, true, took);
        match outcome {
            Ok(()) => {
                if way == Way::Watch && took > NOTICED {
                    self.complain(label, format!("the file was noticed only after {took:?}"));
                }
                if let Some(mut address) = moving {
                    *address = model.value("outbound.proxy").parse().expect("an address");
                }
                if let Some(program) = &mut self.program {
                    program.admin = model.value("admin.listen").parse().expect("an address");
                }
                self.model = Arc::new(model);
                self.eras.add(label, self.model.clone(), written);
            }
            Err(error) => self.complain(label, error),
        }
        self.check(label);
    }

    /// Writes a file that cannot be used, and sees that all stays as it is. What would have been the next change is in it
    /// as well: all of a file counts, or nothing.
    fn refuse(&mut self, label: &str, state: &State, (_, fault, word): &(&str, Fault, &str), way: Way) {
        if self.how != How::Reload {
            return;
        }
        let mut model = Model::clone(&self.model);
        let mut set = |keys: &[(&'static str, &'static str)]| {
            keys.iter().for_each(|(key, value)| model.set(key, &self.places.fill(value)));
        };
        set(state);
        let text = match fault {
            Fault::Keys(keys) => {
                set(keys);
                model.yaml()
            }
            Fault::Added(line) => format!("{}{line}\n", model.yaml()),
            Fault::Gone => String::new(),
        };
        let written = Instant::now();
        match fault {
            Fault::Gone => std::fs::remove_file(&self.file.path).expect("it was there"),
            _ => self.write(&text, way),
        }
        match way {
            Way::Post => match self.post() {
                Ok(answer) => {
                    let word = self.places.fill(word);
                    if answer.status != 422 {
                        self.complain(label, format!("a file that cannot be used: {}", answer.status));
                    } else if !answer.body.contains(&word) {
                        self.complain(label, format!("no word of {word} in the report: {}", answer.body));
                    }
                }
                Err(failure) => self.complain(label, failure),
            },
            Way::Signal => self.hang_up(),
            Way::Watch => {}
        }
        if !eventually(|| self.last_successful() == Some(false)) {
            self.complain(label, "the metric does not say that it was refused".to_owned());
        }
        self.tally.reloaded(way, false, written.elapsed());
        self.check(label);
        if self.last_successful() != Some(false) {
            self.complain(label, "the metric says no more that it was refused".to_owned());
        }
    }

    /// Writes the file as editors do, in place, or as Kubernetes does, by putting another in its place.
    fn write(&self, text: &str, way: Way) {
        let path = &self.file.path;
        // Half a file may be seen if it is written in place, and then nobody says when to look again.
        if way == Way::Watch || self.tally.all().is_multiple_of(2) {
            let next = path.with_extension("next");
            std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, path)).expect("it is writable");
        } else {
            std::fs::write(path, text).expect("it is writable");
        }
    }

    fn post(&self) -> Result<Answer, Failure> {
        let admin = self.program().admin;
        Connection::to(admin)?.ask("POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n")
    }

    fn hang_up(&self) {
        let id = i32::try_from(self.program().id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, Signal::HUP).expect("it runs");
    }

    fn restart(&mut self) -> Result<(), String> {
        self.stop();
        // It does not say where its pages are if it has none, or says nothing.
        let program = std::panic::catch_unwind(|| Start::new(["run", "--config", self.file.name()]).run());
        self.program = Some(program.map_err(|_| "it does not start".to_owned())?);
        Ok(())
    }

    fn stop(&mut self) {
        let program = self.program.take().expect("it runs");
        program.terminate();
        let ended = program.ended();
        if ended.code() != Some(0) {
            self.complain("at the end", format!("it ended with {}", ended.status));
        }
        self.said.0.extend(ended.stdout);
        self.said.1.extend(ended.stderr);
    }

    /// All that can be looked at whatever has changed.
    fn check(&mut self, label: &str) {
        self.collectors.gather();
        for complaint in self.prober.probe(label, &self.model, &self.places) {
            self.complain(label, complaint);
        }
        if self.model.is("admin.enabled", "false") {
            let admin = self.program().admin;
            if !eventually(|| Connection::to(admin).is_err()) {
                self.complain(label, "the admin pages are still there".to_owned());
            }
            return;
        }
        let effective = self.model.effective();
        match shown(self.program().admin) {
            Ok(shown) if shown == effective => {}
            Ok(shown) => {
                let other = shown.lines().zip(effective.lines()).find(|(is, wanted)| is != wanted);
                self.complain(label, format!("/config shows something else: {other:?}"));
            }
            Err(failure) => self.complain(label, format!("/config: {failure}")),
        }
        if let Err(error) = metrics(self.program().admin).and_then(|page| account(&page)) {
            self.complain(label, error);
        }
    }

    fn look(&mut self, label: &str, look: Look) {
        let mut late = Vec::new();
        let mut complaints = Vec::new();
        look(&mut Scene {
            model: &self.model,
            places: &self.places,
            program: self.program.as_ref().expect("it runs"),
            late: &mut late,
            complaints: &mut complaints,
            log_lines: &mut self.log_lines,
        });
        self.late.extend(late.into_iter().map(|late| (label.to_owned(), late)));
        complaints.into_iter().for_each(|complaint| self.complain(label, complaint));
        let sure = self.how == How::Reload && !self.model.is("admin.enabled", "false");
        if sure && self.last_successful() != Some(true) {
            self.complain(label, "the metric does not say that it was successful".to_owned());
        }
    }

    /// Goes back to what the run began with.
    fn back(&mut self, label: &str) {
        match self.how {
            How::Nothing => self.check(label),
            How::Reload | How::Restart => self.become_(label, Model::base(&self.places), Way::Post),
        }
    }

    /// The same, and looks at memory for a while.
    fn rest(&mut self, label: &str) {
        self.back(label);
        let id = self.program().id();
        self.tally.rests.push(Rest::of(id, label));
        self.collectors.gather();
    }

    fn last_successful(&self) -> Option<bool> {
        let page = metrics(self.program().admin).ok()?;
        page.named("tracecar_config_last_reload_successful").next().map(|(_, value)| value == 1.0)
    }

    fn complain(&mut self, label: &str, what: String) {
        let complaint = format!("after {label}: {what}");
        // Said at once, too: a run takes long, and may not come to its end.
        println!("{complaint}");
        self.complaints.push(complaint);
    }

    fn finish(mut self) {
        self.rest("at the end");
        for (label, late) in std::mem::take(&mut self.late) {
            if let Err(error) = late.join().expect("looks do not panic") {
                self.complain(&label, error);
            }
        }
        self.over.store(true, Ordering::Relaxed);
        let outcome = self.traffic.take().map(Traffic::stop);
        let begun = Instant::now();
        let mut page = self.program().metrics();
        while page.count("tracecar_export_spans_queued") + page.count("tracecar_requests_active") > 0 {
            assert!(begun.elapsed() < PATIENCE, "what is queued is exported: {:?}", account(&page));
            std::thread::sleep(Duration::from_millis(20));
            page = self.program().metrics();
        }
        if let Err(error) = account(&page) {
            self.complain("at the end", error);
        }
        self.stop();
        self.collectors.gather();
        if self.how != How::Restart {
            let exported = page.count("tracecar_export_spans_exported_total");
            if self.collectors.distinct() != exported {
                let came = self.collectors.distinct();
                self.complain("at the end", format!("{exported} spans were exported, and {came} came"));
            }
        }
        summary::judge(&mut self, outcome.as_ref());
        summary::print(&self, outcome.as_ref(), &page);
        let complaints = &self.complaints;
        assert!(complaints.is_empty(), "{} complaints, see above", complaints.len());
    }
}

/// The settings on `/config`, without its remarks.
fn shown(admin: SocketAddr) -> Result<String, Failure> {
    let answer = Connection::to(admin)?.ask("GET /config HTTP/1.1\r\nHost: localhost\r\n")?;
    Ok(answer.body.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect())
}

fn metrics(admin: SocketAddr) -> Result<Page, Failure> {
    let answer = Connection::to(admin)?.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n")?;
    Ok(Page::parse(&answer.body))
}

/// Whether every span is accounted for, and none is lost.
fn account(page: &Page) -> Result<(), String> {
    let count = |name: &str| page.count(name);
    let of = |name: &str| count(&format!("tracecar_export_spans_{name}"));
    let (accepted, exported, queued) = (of("accepted_total"), of("exported_total"), of("queued"));
    let (dropped, records) = (of("dropped_total"), count("tracecar_records_dropped_total"));
    let panics = count("tracecar_panics_total");
    let text = format!(
        "{accepted} spans accepted, {exported} exported, {queued} queued, {dropped} dropped, {records} records \
         dropped, {panics} panics"
    );
    let sound = accepted == exported + queued + dropped && dropped + records + panics == 0;
    if sound { Ok(()) } else { Err(text) }
}
