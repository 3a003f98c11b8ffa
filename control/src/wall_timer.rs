//! An alarm by the clock on the wall, which also goes off when somebody sets that clock.
//!
//! Windows of rules and times to live are moments of the calendar. A sleep of the difference would be
//! late or early by as much as the clock was set meanwhile.

use std::io;
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::link_end::registered;

/// The alarm.
#[derive(Debug)]
pub struct WallTimer {
    fd: AsyncFd<OwnedFd>,
    /// What it is set to; `None`: it has gone off, or was never set.
    set: Option<Timestamp>,
}

impl WallTimer {
    /// An alarm that goes off only when the clock is set.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let mut timer = Self { fd: registered(fd)?, set: None };
        timer.set(None)?;
        Ok(timer)
    }

    /// Sets it to a moment, which may have passed; `None`: only for a clock that is set.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn set(&mut self, at: Option<Timestamp>) -> io::Result<()> {
        // There is always a moment: a timer that is off is not told of a clock that is set.
        let at = at.unwrap_or(Timestamp::MAX);
        if self.set == Some(at) {
            return Ok(());
        }
        // Zero would turn it off.
        let nanoseconds = at.as_nanosecond().max(1);
        let value = Timespec {
            tv_sec: i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanoseconds % 1_000_000_000).unwrap_or(0),
        };
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        let wanted = Itimerspec { it_interval: once, it_value: value };
        match timerfd_settime(self.fd.get_ref(), flags, &wanted) {
            // The clock was set since; the timer is set all the same (timerfd_create(2)).
            Ok(_) | Err(Errno::CANCELED) => {}
            Err(error) => return Err(error.into()),
        }
        self.set = Some(at);
        Ok(())
    }

    /// Waits until it has gone off, or the clock was set. To be called by one at a time; the alarm is
    /// to be [set](Self::set) again afterwards.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub async fn went_off(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.fd.readable().await?;
            let mut count = [0; 8];
            let read = guard.try_io(|fd| match rustix::io::read(fd.get_ref(), &mut count) {
                Ok(_) | Err(Errno::CANCELED) => Ok(()),
                Err(error) => Err(error.into()),
            });
            if let Ok(read) = read {
                self.set = None;
                return read;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn it_goes_off_at_its_moment_and_at_one_that_has_passed() {
        let long = Duration::from_secs(30);
        let soon = |ms| Timestamp::now() + jiff::SignedDuration::from_millis(ms);
        let mut timer = WallTimer::new().unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(50), timer.went_off()).await;
        assert!(silent.is_err(), "nobody has set it");
        for at in [soon(30), soon(-30_000), Timestamp::UNIX_EPOCH, Timestamp::MIN] {
            timer.set(Some(at)).unwrap();
            tokio::time::timeout(long, timer.went_off()).await.expect("in time").unwrap();
            assert!(Timestamp::now() >= at);
        }
        timer.set(Some(soon(60_000))).unwrap();
        timer.set(Some(soon(10))).unwrap();
        tokio::time::timeout(long, timer.went_off()).await.expect("an earlier one").unwrap();
        timer.set(Some(soon(10))).unwrap();
        timer.set(None).unwrap();
        let silent = tokio::time::timeout(Duration::from_millis(100), timer.went_off()).await;
        assert!(silent.is_err(), "called off");
    }
}
