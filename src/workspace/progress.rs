//! How far a restore or a save is: counted where the work is done, at no cost, and told every few seconds.

use std::{
    cell::Cell,
    io::{self, Read},
    sync::{
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    quote::Line,
    units::{count, size},
};

/// How often long work says how far it is.
const INTERVAL: Duration = Duration::from_secs(5);

/// How often it does so on a terminal, where each line takes the place of the one before.
const REDRAW: Duration = Duration::from_millis(200);

/// Whether somebody looks at a terminal.
static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// From now on progress is drawn for somebody who looks at a terminal.
pub fn draw() {
    IS_WATCHED.store(true, Relaxed);
}

/// The counters of one restore or save.
pub struct Progress {
    action: Action,
    workspace: String,
    start: Instant,
    phase: AtomicU8,
    files: AtomicU64,
    bytes: AtomicU64,
    total_files: AtomicU64,
    total_bytes: AtomicU64,
}

/// The counts of the work on one layer. A restart subtracts what was counted before.
pub struct LayerProgress<'a> {
    progress: &'a Progress,
    files: Cell<u64>,
    bytes: Cell<u64>,
}

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A workspace is made.
    Restore,
    /// A workspace is stored.
    Save,
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Manifests and tables of contents are read, or the tree is walked through.
    Looking,
    /// The layers of the base are unpacked, one after the other.
    Base,
    /// Files are read or written.
    Files,
    /// What was made is written down, or the image of the run is stored.
    Finishing,
}

/// How far it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// What was going on.
    pub phase: Phase,
    /// Files that were read or written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many there will be; 0 as long as that is not known.
    pub total_files: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Since the beginning.
    pub time: Duration,
}

impl Progress {
    /// Nothing is done yet. `workspace` names it in messages.
    pub fn new(action: Action, workspace: &str) -> Self {
        let zero = AtomicU64::default;
        Self {
            action,
            workspace: workspace.to_owned(),
            start: Instant::now(),
            phase: AtomicU8::new(Phase::Looking as u8),
            files: zero(),
            bytes: zero(),
            total_files: zero(),
            total_bytes: zero(),
        }
    }

    /// How messages name the workspace.
    pub fn workspace(&self) -> &str {
        &self.workspace
    }

    /// Says what is going on now.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Says what is going on now, that nothing of it is done, and that its amount is not known.
    pub fn begin(&self, phase: Phase) {
        self.enter(phase);
        [&self.files, &self.bytes, &self.total_files, &self.total_bytes]
            .iter()
            .for_each(|count| count.store(0, Relaxed));
    }

    /// Says how much there is to do, done or not.
    pub fn expect(&self, files: u64, bytes: u64) {
        self.total_files.store(files, Relaxed);
        self.total_bytes.store(bytes, Relaxed);
    }

    /// The part of it that is the work on one layer.
    pub fn of_layer(&self) -> LayerProgress<'_> {
        LayerProgress { progress: self, files: Cell::new(0), bytes: Cell::new(0) }
    }

    /// How far it is.
    pub fn now(&self) -> Moment {
        let phase = match self.phase.load(Relaxed) {
            0 => Phase::Looking,
            1 => Phase::Base,
            2 => Phase::Files,
            _ => Phase::Finishing,
        };
        Moment {
            phase,
            files: self.files.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            total_files: self.total_files.load(Relaxed),
            total_bytes: self.total_bytes.load(Relaxed),
            time: self.start.elapsed(),
        }
    }

    /// Does `work`; as long as it takes, the log says every few seconds how far it is, or a terminal shows it.
    pub fn logged<T>(&self, work: impl FnOnce() -> T) -> T {
        let in_place = IS_WATCHED.load(Relaxed);
        let interval = if in_place { REDRAW } else { INTERVAL };
        self.every(interval, &|last, now| self.log(last, now, in_place), work)
    }

    /// Does `work`; as long as it takes, `tell` gets the last moment and this one, once in `interval`.
    pub fn every<T>(&self, interval: Duration, tell: &(dyn Fn(Moment, Moment) + Sync), work: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            // Dropped when the work is done, and also if it panics.
            let (_working, done) = mpsc::channel::<()>();
            scope.spawn(move || {
                let mut last = self.now();
                while done.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                    let now = self.now();
                    tell(last, now);
                    last = now;
                }
            });
            work()
        })
    }

    fn log(&self, last: Moment, now: Moment, in_place: bool) {
        let bar = if in_place { now.bar() } else { String::new() };
        let action = if self.action == Action::Restore { "restore" } else { "save" };
        tracing::info!(
            event = "progress",
            action,
            workspace = self.workspace,
            phase = now.phase.name(),
            files = now.files,
            bytes = now.bytes,
            total_files = now.total_files,
            total_bytes = now.total_bytes,
            bytes_per_second = now.rate_since(last),
            seconds = now.time.as_secs_f64(),
            in_place,
            "{bar}{}",
            self.line(last, now)
        );
    }

    fn line(&self, last: Moment, now: Moment) -> String {
        let doing = match (self.action, now.phase) {
            (Action::Restore, Phase::Looking) => "reading tables of contents",
            (Action::Save, Phase::Looking) => "looking for changes",
            (Action::Restore, Phase::Base) | (Action::Save, Phase::Base) => "unpacking the base",
            (Action::Restore, Phase::Files) => "restoring",
            (Action::Save, Phase::Files) => "saving",
            (Action::Restore, Phase::Finishing) => "setting attributes of directories",
            (Action::Save, Phase::Finishing) => "storing the image of the run",
        };
        let of_total = |total: u64, shown: String| if total == 0 { String::new() } else { format!(" of {shown}") };
        format!(
            "{}: {doing}: {}{}, {}{}, {}/s, {} s",
            Line(&self.workspace),
            count(now.files, "file"),
            of_total(now.total_files, now.total_files.to_string()),
            size(now.bytes),
            of_total(now.total_bytes, size(now.total_bytes)),
            size(now.rate_since(last)),
            now.time.as_secs()
        )
    }
}

impl LayerProgress<'_> {
    /// The work starts or restarts.
    pub fn begin(&self) {
        self.progress.files.fetch_sub(self.files.take(), Relaxed);
        self.progress.bytes.fetch_sub(self.bytes.take(), Relaxed);
    }

    /// A file is done.
    pub fn file(&self) {
        self.files.set(self.files.get().saturating_add(1));
        self.progress.files.fetch_add(1, Relaxed);
    }

    /// A part of a file is done.
    pub fn bytes(&self, count: u64) {
        self.bytes.set(self.bytes.get().saturating_add(count));
        self.progress.bytes.fetch_add(count, Relaxed);
    }

    /// Counts what is read from `input`.
    pub fn counting<'a>(&'a self, input: &'a mut dyn Read) -> impl Read + 'a {
        Counting { progress: self, input }
    }
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Looking => "looking",
            Self::Base => "base",
            Self::Files => "files",
            Self::Finishing => "finishing",
        }
    }
}

impl Moment {
    /// Its part of the whole, drawn; empty as long as the whole is not known.
    fn bar(self) -> String {
        const CELLS: u128 = 20;
        let of = |part: u64, whole: u64| {
            let whole = u128::from(whole);
            u128::from(part).min(whole).saturating_mul(100).checked_div(whole).unwrap_or_default()
        };
        let percent = match (self.total_bytes, self.total_files) {
            (0, 0) => return String::new(),
            (0, files) => of(self.files, files),
            (bytes, _) => of(self.bytes, bytes),
        };
        let bar: String = (0..CELLS).map(|cell| if cell.saturating_mul(5) < percent { '#' } else { '.' }).collect();
        format!("[{bar}] {percent:3} % ")
    }

    /// Bytes per second; 0 if the counter was reset.
    #[allow(clippy::cast_possible_truncation, reason = "a rate for people; too large a one becomes the largest")]
    fn rate_since(self, last: Self) -> u64 {
        let seconds = self.time.saturating_sub(last.time).as_secs_f64();
        let bytes = self.bytes.saturating_sub(last.bytes);
        if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { 0 }
    }
}

struct Counting<'a> {
    progress: &'a LayerProgress<'a>,
    input: &'a mut dyn Read,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        self.progress.bytes(len as u64);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_line_says_what_is_going_on() {
        let progress = Progress::new(Action::Restore, "sources");
        let moment = |phase, files, bytes, seconds| Moment {
            phase,
            files,
            bytes,
            total_files: 56_939,
            total_bytes: 713_000_000,
            time: Duration::from_secs(seconds),
        };
        let (last, now) = (moment(Phase::Files, 1, 200_000_000, 5), moment(Phase::Files, 12_034, 712_000_000, 10));
        let line = "sources: restoring: 12034 files of 56939, 712.0 MB of 713.0 MB, 102.4 MB/s, 10 s";
        assert_eq!(progress.line(last, now), line);
        let unknown = Moment { total_files: 0, total_bytes: 0, ..moment(Phase::Base, 1, 5, 5) };
        assert_eq!(progress.line(last, unknown), "sources: unpacking the base: 1 file, 5 B, 0 B/s, 5 s");
    }

    #[test]
    fn a_bar_is_as_long_as_what_is_done() {
        let at = |bytes, total_bytes, files, total_files| {
            Moment { phase: Phase::Files, files, bytes, total_files, total_bytes, time: Duration::ZERO }.bar()
        };
        assert_eq!(at(0, 0, 7, 0), "");
        assert_eq!(at(0, 10, 0, 1), "[....................]   0 % ");
        assert_eq!(at(45, 100, 0, 1), "[#########...........]  45 % ");
        assert_eq!(at(u64::MAX, u64::MAX - 1, 0, 1), "[####################] 100 % ");
        assert_eq!(at(0, 0, 1, 2), "[##########..........]  50 % ");
    }

    #[test]
    fn long_work_is_told_and_short_work_is_not() {
        let progress = Progress::new(Action::Save, "ws");
        let told = Mutex::new(Vec::new());
        let tell = |_, now| told.lock().unwrap().push(now);
        assert_eq!(progress.every(Duration::from_secs(3600), &tell, || 7), 7);
        assert_eq!(told.lock().unwrap().len(), 0);
        let long = || {
            progress.expect(3, 30);
            let layer = progress.of_layer();
            while told.lock().unwrap().len() < 3 {
                thread::yield_now();
                layer.file();
            }
        };
        progress.every(Duration::from_millis(1), &tell, long);
        let told = told.lock().unwrap();
        assert!(told.is_sorted_by_key(|moment: &Moment| (moment.files, moment.time)), "{told:?}");
        assert_eq!(told[2].total_files, 3);
    }

    #[test]
    fn a_layer_that_is_begun_anew_counts_once() {
        let progress = Progress::new(Action::Save, "ws");
        let (broken, other) = (progress.of_layer(), progress.of_layer());
        for _ in 0..2 {
            broken.begin();
            (0..21).for_each(|_| broken.file());
            broken.bytes(100);
        }
        other.begin();
        other.file();
        assert_eq!((progress.now().files, progress.now().bytes), (22, 100));
    }

    #[test]
    fn work_that_panics_ends_the_telling() {
        let progress = Progress::new(Action::Save, "ws");
        let work = || progress.every(Duration::from_secs(3600), &|_, _| {}, || panic!("on purpose"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
    }
}
