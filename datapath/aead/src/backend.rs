//! Which code does the work, chosen once per process.
//!
//! ```text
//!   BULKHEAD_AEAD, or avx512 ▶ avx2 ▶ library
//!                       │ not for this processor, not the right answers, or slower: the next one
//!                       └▶ what was refused and why is kept for whoever logs
//! ```

use core::fmt;
use core::str::FromStr;
use std::sync::OnceLock;

use crate::schedule::Piece;
use crate::{Defect, Open, Seal, library, portable::Portable, schedule, self_test, speed};
#[cfg(target_arch = "x86_64")]
use crate::{avx2::Avx2, avx512::Avx512};

/// Code that seals and opens batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// AVX-512 with 52-bit multiply-add.
    Avx512,
    /// AVX2, with the multiplication of BMI2.
    Avx2,
    /// No special instructions. Slower than the library, for tests and as what the others are read
    /// against.
    Portable,
    /// `ring`, one message after the other.
    Library,
}

impl Backend {
    /// All of them, fastest first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Portable, Self::Library];

    /// The name in `BULKHEAD_AEAD`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
            Self::Library => "library",
        }
    }

    /// Whether this processor has what it needs.
    #[must_use]
    pub fn is_supported(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Avx2::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable | Self::Library => true,
        }
    }

    /// As [`crate::seal_batch`], with this back end, or the library if the processor has not what it
    /// needs.
    #[inline]
    pub fn seal<'m, 'a: 'm>(self, batch: impl IntoIterator<Item = &'m mut Seal<'a>>) {
        let mut batch = batch.into_iter();
        while let Some(mut piece) = Piece::of(&mut batch) {
            self.seal_piece(&mut piece);
        }
    }

    /// As [`crate::open_batch`], with this back end, or the library if the processor has not what it
    /// needs.
    #[inline]
    pub fn open<'m, 'a: 'm>(self, batch: impl IntoIterator<Item = &'m mut Open<'a>>) {
        let mut batch = batch.into_iter();
        while let Some(mut piece) = Piece::of(&mut batch) {
            self.open_piece(&mut piece);
        }
    }

    fn seal_piece(self, piece: &mut Piece<'_, Seal<'_>>) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if let Some(kernel) = Avx512::detect() => schedule::seal(kernel, piece),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 if let Some(kernel) = Avx2::detect() => schedule::seal(kernel, piece),
            Self::Portable => schedule::seal(Portable, piece),
            Self::Avx512 | Self::Avx2 | Self::Library => piece.iter_mut().for_each(library::seal),
        }
    }

    fn open_piece(self, piece: &mut Piece<'_, Open<'_>>) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if let Some(kernel) = Avx512::detect() => schedule::open(kernel, piece),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 if let Some(kernel) = Avx2::detect() => schedule::open(kernel, piece),
            Self::Portable => schedule::open(Portable, piece),
            Self::Avx512 | Self::Avx2 | Self::Library => piece.iter_mut().for_each(library::open),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        Self::ALL
            .into_iter()
            .find(|backend| backend.name() == name)
            .ok_or_else(|| Unknown(name.to_owned()))
    }
}

/// No back end has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no AEAD back end {0:?}; there are avx512, avx2, portable and library")]
pub struct Unknown(String);

/// The back end of this process, and what was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What [`crate::seal_batch`] and [`crate::open_batch`] use.
    pub backend: Backend,
    /// What would have been preferred, in that order.
    pub refused: Vec<Refusal>,
    /// What `BULKHEAD_AEAD` asked for, if it is set.
    pub wanted: Option<Result<Backend, Unknown>>,
}

/// A back end that is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The back end.
    pub backend: Backend,
    /// Why not.
    pub reason: Reason,
}

/// Why a back end is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The processor has not what it needs.
    Unsupported,
    /// It gave a wrong answer in the self-test.
    Defective(Defect),
    /// The library is faster on this processor.
    Slower,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Unsupported => {
                write!(f, "{}: this processor has not what it needs", self.backend)
            }
            Reason::Defective(defect) => write!(f, "{}: {defect}", self.backend),
            Reason::Slower => write!(f, "{}: slower than the library here", self.backend),
        }
    }
}

impl Choice {
    /// `BULKHEAD_AEAD` asks for something that is not used.
    #[must_use]
    pub fn is_disobedient(&self) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| *wanted != Ok(self.backend))
    }

    /// The first of `wanted`, or of all but the slow portable one, that `test` finds no reason
    /// against. In the end the library, which is not questioned: there is nothing behind it.
    fn make(
        wanted: Option<Result<Backend, Unknown>>,
        test: impl Fn(Backend) -> Result<(), Reason>,
    ) -> Self {
        let candidates = match wanted {
            Some(Ok(backend)) => [Some(backend), None],
            Some(Err(_)) | None => [Some(Backend::Avx512), Some(Backend::Avx2)],
        };
        let mut refused = vec![];
        for backend in candidates.into_iter().flatten() {
            match test(backend) {
                Ok(()) => return Self { backend, refused, wanted },
                Err(reason) => refused.push(Refusal { backend, reason }),
            }
        }
        Self { backend: Backend::Library, refused, wanted }
    }
}

/// The back end of this process. The first call tests and chooses, and takes some milliseconds.
pub fn choice() -> &'static Choice {
    static CHOICE: OnceLock<Choice> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let wanted = std::env::var("BULKHEAD_AEAD").ok().map(|name| name.parse());
        let forced = wanted.is_some();
        Choice::make(wanted, |backend| {
            if !backend.is_supported() {
                return Err(Reason::Unsupported);
            }
            self_test::run(|batch| backend.seal(batch), |batch| backend.open(batch))
                .map_err(Reason::Defective)?;
            // Whoever asks for one by name gets it at its own speed.
            if !forced && speed::is_slower_than_the_library(backend) {
                return Err(Reason::Slower);
            }
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests;
