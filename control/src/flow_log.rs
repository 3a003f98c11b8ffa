//! The flow log: what the datapath records of flows becomes lines of a file.
//!
//! ```text
//!   link ─▶ State ─▶ Action::Flows ─▶ queue ─▶ thread: names, lines, file
//!                                        └ full: lost, counted
//! ```
//!
//! The event loop only puts a batch into the queue: a disk that is slow, full or gone holds up no
//! revocation. INVARIANT: every record that was taken is a line of the file, is in the queue, or is
//! counted as lost. A disk that fails is said once in the log, and in `bulkhead status` until it works.

mod file;
mod line;
mod who;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use bulkhead_config::Config;
use bulkhead_link::FlowRecord;
use tracing::{info, warn};

use crate::api::FlowLogAnswer;
use file::LineFile;
use line::write_line;
use who::Who;

/// Batches that wait for the disk, 400 records each at most: some 3 MB. At ten thousand flows a second the
/// disk may be away for two seconds.
const QUEUE: usize = 64;

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
    queue: SyncSender<Batch>,
    figures: Arc<Figures>,
    /// Hangs up when the thread ends.
    over: Receiver<()>,
}

/// What both sides count, since the start.
#[derive(Default)]
struct Figures {
    written: AtomicU64,
    lost: AtomicU64,
    /// Why nothing is written now.
    problem: Mutex<Option<String>>,
}

impl FlowLog {
    /// Starts the thread. Nothing is opened before there is something to write; a path that does not begin
    /// with / is inside `folder`.
    ///
    /// # Errors
    ///
    /// If the system has no thread to give.
    pub fn start(folder: PathBuf) -> io::Result<Self> {
        let (queue, batches) = sync_channel(QUEUE);
        let (alive, over) = channel::<()>();
        let figures = Arc::<Figures>::default();
        let mut writer = Writer { folder, figures: Arc::clone(&figures), names: None };
        thread::Builder::new().name("flow-log".to_owned()).spawn(move || {
            let _alive = alive;
            while let Ok(batch) = batches.recv() {
                writer.write(&batch);
            }
        })?;
        Ok(Self { queue, figures, over })
    }

    /// Takes a batch. Waits for nothing: without room it is lost.
    pub fn take(&self, batch: Batch) {
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) =
            self.queue.try_send(batch)
        {
            self.figures.lost.fetch_add(batch.records.len() as u64, Ordering::Relaxed);
        }
    }

    /// Puts its figures into an answer.
    pub fn tell(&self, answer: &mut FlowLogAnswer) {
        answer.written = self.figures.written.load(Ordering::Relaxed);
        answer.lost = self.figures.lost.load(Ordering::Relaxed);
        answer.problem =
            self.figures.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
    fn write(&mut self, batch: &Batch) {
        let known = self.names.take().filter(|(of, ..)| Arc::ptr_eq(of, &batch.config));
        let (config, who, mut file) = known.unwrap_or_else(|| {
            let log = &batch.config.flow_log;
            let size_max = u64::from(log.size_max_mib) << 20;
            let file = LineFile::new(self.folder.join(&log.file), size_max);
            (Arc::clone(&batch.config), Who::of(&batch.config), file)
        });
        let mut lines = Vec::with_capacity(512 * batch.records.len());
        for record in &batch.records {
            write_line(&mut lines, record, batch, &who);
        }
        let mut written = 0;
        let result = file.append(&lines, &mut written);
        let lost = (batch.records.len() as u64).saturating_sub(written);
        self.figures.written.fetch_add(written, Ordering::Relaxed);
        self.figures.lost.fetch_add(lost, Ordering::Relaxed);
        self.report(&file, result.err());
        self.names = Some((config, who, file));
    }

    /// Says what is wrong, once, and that it is not any more.
    fn report(&self, file: &LineFile, problem: Option<io::Error>) {
        let problem = problem.map(|problem| format!("{}: {problem}", file.path().display()));
        let mut last = self.figures.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*last, &problem) {
            (None, Some(problem)) => warn!("flow log not written, records are lost: {problem}"),
            (Some(_), None) => info!(path = %file.path().display(), "flow log is written again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        *last = problem;
    }
}

#[cfg(test)]
mod tests;
