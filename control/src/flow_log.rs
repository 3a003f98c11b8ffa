//! The flow log: what the datapath records of flows becomes lines of a file.
//!
//! ```text
//!   link ─▶ State ─▶ Action::Flows ─▶ queue ─▶ thread: names, lines, file
//!                                        └ full: lost, counted
//! ```
//!
//! The event loop only puts a batch into the queue: a disk that is slow, full or gone holds up no
//! revocation. INVARIANT: every record that was taken is a line of the file, is in the queue, or is
//! counted as lost. A disk that fails or does not keep up is said once in the log, and in `bulkhead status`
//! until it works.

mod file;
mod line;
pub(crate) mod place;
mod who;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use bulkhead_config::Config;
use bulkhead_link::FlowRecord;
use tracing::{info, warn};

use crate::api::FlowLogAnswer;
use file::LineFile;
use line::write_line;
use who::Who;

/// Records that wait for the disk: some 3 MB, however many messages they came in. At ten thousand flows a
/// second the disk may be away for two seconds.
const RECORDS_MAX: u64 = 25_600;

/// How often it is looked whether a disk that failed works again, if there is nothing to write.
const PROBE: Duration = Duration::from_secs(5);

/// How long the end of `bulkheadd` waits for what is in the queue. A disk that takes longer has it lost.
const FAREWELL: Duration = Duration::from_secs(2);

/// Records that came in one message.
pub struct Batch {
    /// What the datapath says.
    pub records: Vec<FlowRecord>,
    /// Its clock when it said so, milliseconds.
    pub now_ms: u64,
    /// The wall clock at the same moment, milliseconds since 1970.
    pub wall_ms: u64,
    /// The configuration whose names the lines have.
    pub config: Arc<Config>,
}

/// The event loop's side.
pub struct FlowLog {
    /// Without a bound of its own: [`Queue`] has it.
    queue: Sender<Batch>,
    figures: Arc<Figures>,
    /// Hangs up when the thread ends.
    over: Receiver<()>,
}

/// What both sides count, since the start.
#[derive(Default)]
struct Figures {
    written: AtomicU64,
    lost: AtomicU64,
    /// Never held over anything that waits.
    queue: Mutex<Queue>,
}

/// What is between the two sides.
#[derive(Default)]
struct Queue {
    /// Records that are not written yet, those that are being written too.
    records: u64,
    /// It was full, and was not empty since: so that a disk that is hardly too slow is not told of each time.
    full: bool,
    /// Why nothing is written now.
    failed: Option<String>,
}

impl Figures {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn problem(&self) -> Option<String> {
        let full = || {
            format!(
                "{} records wait for the disk, which hangs or is too slow; it takes no more than \
                 {RECORDS_MAX}",
                self.records
            )
        };
        self.failed.clone().or_else(|| self.full.then(full))
    }
}

impl FlowLog {
    /// Starts the thread. Nothing is opened before there is something to write; a path that does not begin
    /// with / is inside `folder`.
    ///
    /// # Errors
    ///
    /// If the system has no thread to give.
    pub fn start(folder: PathBuf) -> io::Result<Self> {
        let (queue, batches) = channel();
        let (alive, over) = channel::<()>();
        let figures = Arc::<Figures>::default();
        let mut writer = Writer { folder, figures: Arc::clone(&figures), names: None };
        thread::Builder::new().name("flow-log".to_owned()).spawn(move || {
            let _alive = alive;
            writer.run(&batches);
        })?;
        Ok(Self { queue, figures, over })
    }

    /// Takes a batch. Waits for nothing: without room it is lost.
    pub fn take(&self, batch: Batch) {
        let count = batch.records.len() as u64;
        let mut queue = self.figures.queue();
        let room = queue.records + count <= RECORDS_MAX;
        // The other side subtracts it only when it has it.
        if room && self.queue.send(batch).is_ok() {
            queue.records += count;
            return;
        }
        self.figures.lost.fetch_add(count, Ordering::Relaxed);
        let first = !std::mem::replace(&mut queue.full, true);
        let problem = queue.problem();
        // Who reads the log may be slow.
        drop(queue);
        if let (true, Some(problem)) = (first, problem) {
            warn!("flow log does not keep up, records are lost: {problem}");
        }
    }

    /// Another configuration is in force. If something is wrong it is tried at once whether it still is:
    /// the file may be another, and there may be no record any more.
    pub fn configured(&self, config: &Arc<Config>) {
        if self.figures.queue().failed.is_some() {
            let nothing =
                Batch { records: vec![], now_ms: 0, wall_ms: 0, config: Arc::clone(config) };
            // Without the thread there is nobody to try.
            let _ = self.queue.send(nothing);
        }
    }

    /// Puts its figures into an answer.
    pub fn tell(&self, answer: &mut FlowLogAnswer) {
        answer.written = self.figures.written.load(Ordering::Relaxed);
        answer.lost = self.figures.lost.load(Ordering::Relaxed);
        answer.problem = self.figures.queue().problem();
    }

    /// Has what is in the queue written, if the disk takes it within some seconds.
    pub fn finish(self) {
        drop(self.queue);
        // It ends by hanging up, or takes too long.
        let _ = self.over.recv_timeout(FAREWELL);
    }
}

/// The thread's side.
struct Writer {
    folder: PathBuf,
    figures: Arc<Figures>,
    /// What was made of the configuration of the last batch.
    names: Option<(Arc<Config>, Who, LineFile)>,
}

impl Writer {
    fn run(&mut self, batches: &Receiver<Batch>) {
        loop {
            let failed = self.figures.queue().failed.is_some();
            let next = match failed {
                true => batches.recv_timeout(PROBE),
                false => batches.recv().map_err(RecvTimeoutError::from),
            };
            match next {
                Ok(batch) => self.write(&batch),
                Err(RecvTimeoutError::Timeout) => self.probe(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// A batch without records only asks whether there could be some.
    fn write(&mut self, batch: &Batch) {
        let known = self.names.take().filter(|(of, ..)| Arc::ptr_eq(of, &batch.config));
        let (config, who, mut file) = known.unwrap_or_else(|| {
            let log = &batch.config.flow_log;
            let size_max = u64::from(log.size_max_mib) << 20;
            let file = LineFile::new(self.folder.join(&log.file), size_max);
            (Arc::clone(&batch.config), Who::of(&batch.config), file)
        });
        if batch.records.is_empty() {
            self.names = Some((config, who, file));
            return self.probe();
        }
        let mut lines = Vec::with_capacity(512 * batch.records.len());
        for record in &batch.records {
            write_line(&mut lines, record, batch, &who);
        }
        let mut written = 0;
        let result = self.placed(&config).and_then(|()| file.append(&lines, &mut written));
        let count = batch.records.len() as u64;
        self.figures.written.fetch_add(written, Ordering::Relaxed);
        self.figures.lost.fetch_add(count.saturating_sub(written), Ordering::Relaxed);
        self.report(&file, result.err());
        self.done(count);
        self.names = Some((config, who, file));
    }

    /// Tries whether what failed works now.
    fn probe(&mut self) {
        if let Some((config, who, mut file)) = self.names.take() {
            let result = self.placed(&config).and_then(|()| file.probe());
            self.report(&file, result.err());
            self.names = Some((config, who, file));
        }
    }

    /// Each time, since links change; some microseconds for a message.
    fn placed(&self, config: &Config) -> io::Result<()> {
        place::check(&self.folder, Path::new(&config.flow_log.file))
    }

    /// So many records are out of the queue.
    fn done(&self, count: u64) {
        let mut queue = self.figures.queue();
        queue.records = queue.records.saturating_sub(count);
        let over = queue.records == 0 && std::mem::take(&mut queue.full);
        drop(queue);
        if over {
            info!("flow log keeps up again");
        }
    }

    /// Says what is wrong, once, and that it is not any more.
    fn report(&self, file: &LineFile, problem: Option<io::Error>) {
        let problem = problem.map(|problem| format!("{}: {problem}", file.path().display()));
        let last = std::mem::replace(&mut self.figures.queue().failed, problem.clone());
        match (last, problem) {
            (None, Some(problem)) => warn!("flow log not written, records are lost: {problem}"),
            (Some(_), None) => {
                info!(path = %file.path().display(), "flow log can be written again");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests;
