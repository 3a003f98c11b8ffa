//! What all ChaCha20 kernels share: where the blocks of a group come from and go to.
//!
//! The key and nonce of each message of a group are in [`Inputs`], word by word, so that one vector
//! holds the same word of all of them; the words of each lane's message are picked with one permutation
//! a word. Their texts are in [`Row`]s, cut into [`Blocks`]:
//!
//! ```text
//!   A.0 B.0 C.0 …      across: the one-time keys, and a block of every message as long as each has one
//!   A.1 B.1 C.1 …
//!   A.2 A.3 A.4 C.2 …  along: what is left, message by message; no lane idles before the last step
//! ```

use crate::poly1305::OneTimeKeys;

/// Bytes of a block.
pub(crate) const BLOCK_LEN: usize = 64;

/// "expand 32-byte k" (RFC 8439 §2.3).
pub(crate) const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// What the messages of a group put into the block function, in the order of RFC 8439 §2.3: eight
/// words of the key and three of the nonce, each of all messages beside each other. Wiped on drop.
#[repr(align(64))]
pub(crate) struct Inputs<const G: usize> {
    pub(crate) key: [[u32; G]; 8],
    pub(crate) nonce: [[u32; G]; 3],
}

impl<const G: usize> Inputs<G> {
    pub(crate) const fn new() -> Self {
        Self { key: [[0; G]; 8], nonce: [[0; G]; 3] }
    }

    /// The keys of all messages, in their places.
    #[inline]
    pub(crate) fn set_keys(&mut self, keys: &[&[u32; 8]; G]) {
        for (message, key) in keys.iter().enumerate() {
            for (words, word) in self.key.iter_mut().zip(*key) {
                words.get_mut(message).into_iter().for_each(|place| *place = *word);
            }
        }
    }

    /// The nonce of the message in place `message`, below `G`.
    #[inline]
    pub(crate) fn set_nonce(&mut self, message: u32, nonce: &[u8; 12]) {
        let message = message as usize % G;
        for (words, word) in self.nonce.iter_mut().zip(nonce.as_chunks::<4>().0) {
            words.get_mut(message).into_iter().for_each(|place| *place = u32::from_le_bytes(*word));
        }
    }
}

impl<const G: usize> Drop for Inputs<G> {
    fn drop(&mut self) {
        wipe(&mut self.key);
    }
}

/// A stretch of text of every message of a group, in its place; none is an empty one.
pub(crate) struct Row<'a, const G: usize> {
    pub(crate) texts: [&'a mut [u8]; G],
    /// Of the first block of each text.
    counter: u32,
    /// Bytes at the beginning of each text that were done across.
    done: usize,
}

impl<const G: usize> Row<'_, G> {
    /// Whose texts are to begin with block `counter`.
    #[inline]
    pub(crate) fn new(counter: u32) -> Self {
        Self { texts: core::array::from_fn(|_| Default::default()), counter, done: 0 }
    }

    #[inline]
    fn shortest(&self) -> usize {
        self.texts.iter().map(|text| text.len()).min().unwrap_or(0)
    }

    #[inline]
    fn longest(&self) -> usize {
        self.texts.iter().map(|text| text.len()).max().unwrap_or(0)
    }
}

/// The blocks of some rows, and where the one-time keys go.
pub(crate) struct Blocks<'s, 'a, const G: usize> {
    rows: &'s mut [Row<'a, G>],
    keys: Option<&'s mut OneTimeKeys<G>>,
    /// The next step across: its row, its first message, where in the texts, and how long the
    /// shortest of these is.
    row: usize,
    message: usize,
    at: usize,
    shortest: usize,
    /// The next text along, and its next block.
    along: usize,
    block: u32,
}

/// One step of a kernel.
pub(crate) enum Step {
    /// Across: block `counter` of as many messages as there are lanes, `at` in the texts of a row.
    Across { row: usize, first: u32, counter: u32, at: usize },
    /// Along: the blocks of the lanes.
    Along,
}

impl Step {
    /// Block 0 of as many messages as there are lanes, from the message `first` on; of no row, so there is
    /// nothing to XOR.
    pub(crate) const fn keys(first: u32) -> Self {
        Self::Across { row: usize::MAX, first, counter: 0, at: 0 }
    }
}

/// The blocks of a step along: the message and counter of each, and the text that it goes over. A
/// lane without a block has an empty text.
#[repr(align(64))]
pub(crate) struct Lanes<'a, const N: usize> {
    pub(crate) messages: [u32; N],
    pub(crate) counters: [u32; N],
    texts: [&'a mut [u8]; N],
}

impl<const N: usize> Lanes<'_, N> {
    pub(crate) fn new() -> Self {
        let texts = core::array::from_fn(|_| Default::default());
        Self { messages: [0; N], counters: [0; N], texts }
    }
}

impl<'s, 'a, const G: usize> Blocks<'s, 'a, G> {
    #[inline]
    pub(crate) fn new(rows: &'s mut [Row<'a, G>]) -> Self {
        let shortest = rows.first().map_or(0, Row::shortest);
        Self { rows, keys: None, row: 0, message: 0, at: 0, shortest, along: 0, block: 0 }
    }

    /// And block 0 of each message, which makes its one-time key.
    #[inline]
    pub(crate) fn with_keys(rows: &'s mut [Row<'a, G>], keys: &'s mut OneTimeKeys<G>) -> Self {
        Self { keys: Some(keys), ..Self::new(rows) }
    }

    /// The next step of `N` lanes, if there is one; `N` divides `G`. The one before must be done.
    #[inline]
    pub(crate) fn next<const N: usize>(&mut self, lanes: &mut Lanes<'a, N>) -> Option<Step> {
        self.across::<N>().or_else(|| self.along(lanes))
    }

    /// Where the one-time keys go, if they are wanted: of [`Step::keys`] of all messages.
    #[inline]
    pub(crate) fn take_keys(&mut self) -> Option<&'s mut OneTimeKeys<G>> {
        self.keys.take()
    }

    /// The next step, and another one with it if that does not depend on the first.
    #[inline]
    pub(crate) fn next_two<const N: usize>(
        &mut self,
        lanes: [&mut Lanes<'a, N>; 2],
    ) -> Option<(Step, Option<Step>)> {
        let [a, b] = lanes;
        match self.across::<N>() {
            Some(step) => Some((step, self.across::<N>())),
            None => self.along(a).map(|step| (step, self.along(b))),
        }
    }

    /// Always inlined: a step that went through memory was waited for, 45 cycles of 1,300.
    #[inline(always)]
    fn across<const N: usize>(&mut self) -> Option<Step> {
        while self.at >= self.shortest {
            let row = self.rows.get_mut(self.row)?;
            row.done = self.at;
            // Whole rows at the beginning need not be looked through again.
            if self.along == self.row * G && row.longest() <= self.at {
                self.along += G;
            }
            self.at = 0;
            self.row += 1;
            self.shortest = self.rows.get(self.row).map_or(0, Row::shortest);
        }
        let (row, first, at) = (self.row, number(self.message), self.at);
        let counter = self.rows.get(row)?.counter.wrapping_add(blocks_before(at));
        self.message = (self.message + N) % G;
        if self.message == 0 {
            self.at += BLOCK_LEN;
        }
        Some(Step::Across { row, first, counter, at })
    }

    /// Fills the lanes with what is left after all steps across are done.
    #[inline]
    fn along<const N: usize>(&mut self, lanes: &mut Lanes<'a, N>) -> Option<Step> {
        let mut any = false;
        let Lanes { messages, counters, texts } = lanes;
        for ((message, counter), text) in messages.iter_mut().zip(counters).zip(texts) {
            *text = self.next_along(message, counter);
            any |= !text.is_empty();
        }
        any.then_some(Step::Along)
    }

    #[inline]
    fn next_along(&mut self, message: &mut u32, counter: &mut u32) -> &'a mut [u8] {
        while let Some(row) = self.rows.get_mut(self.along / G)
            && let Some(text) = row.texts.get_mut(self.along % G)
        {
            if self.block == 0 {
                split_off_front(text, row.done);
                self.block = blocks_before(row.done);
            }
            if !text.is_empty() {
                *message = number(self.along % G);
                *counter = row.counter.wrapping_add(self.block);
                self.block += 1;
                return split_off_front(text, BLOCK_LEN);
            }
            self.along += 1;
            self.block = 0;
        }
        &mut []
    }

    /// Calls `xor` with the rest of the text of each lane and the key stream of its next block.
    #[inline]
    pub(crate) fn xor<const N: usize, S>(
        &mut self,
        step: &Step,
        lanes: &mut Lanes<'a, N>,
        streams: &[S; N],
        xor: impl Fn(&mut [u8], &S),
    ) {
        match *step {
            Step::Across { row, first, at, .. } => {
                let texts = self.rows.get_mut(row).map(|row| &mut row.texts);
                let texts = texts.and_then(|texts| texts.get_mut(first as usize..));
                let Some(texts) = texts.and_then(<[_]>::first_chunk_mut::<N>) else { return };
                for (text, stream) in texts.iter_mut().zip(streams) {
                    xor(text.get_mut(at..).unwrap_or_default(), stream);
                }
            }
            Step::Along => {
                for (text, stream) in lanes.texts.iter_mut().zip(streams) {
                    xor(text, stream);
                }
            }
        }
    }
}

/// Whole blocks of so many bytes.
#[inline]
const fn blocks_before(at: usize) -> u32 {
    number(at / BLOCK_LEN)
}

/// The number of a message of a group, or of a block of a message.
#[inline]
const fn number(n: usize) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a message is not longer than TEXT_MAX")]
    let number = n as u32;
    number
}

/// Takes the first `len` bytes of a slice, or all if it is shorter.
#[inline]
fn split_off_front<'a>(text: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    let all = core::mem::take(text);
    let (front, rest) = all.split_at_mut(len.min(all.len()));
    *text = rest;
    front
}

/// Overwrites what must not stay on the stack. `black_box` is all that keeps the compiler from
/// seeing that nobody reads it; writing volatile bytes one by one would cost more than the cipher.
#[inline]
pub(crate) fn wipe<T: Copy + Default, const N: usize>(secrets: &mut [[T; N]]) {
    secrets.fill([T::default(); N]);
    core::hint::black_box(&*secrets);
}

/// XORs a text that is shorter than a block.
#[inline]
pub(crate) fn xor_short(text: &mut [u8], block: &[u8; BLOCK_LEN]) {
    let (wide, rest) = text.as_chunks_mut::<16>();
    let (wide_stream, _) = block.as_chunks::<16>();
    let done = wide.len() * 16;
    for (text, stream) in wide.iter_mut().zip(wide_stream) {
        *text = (u128::from_ne_bytes(*text) ^ u128::from_ne_bytes(*stream)).to_ne_bytes();
    }
    for (text, stream) in rest.iter_mut().zip(block.iter().skip(done)) {
        *text ^= stream;
    }
}

/// The double round of RFC 8439 §2.3 over `x`, an array of 16 words of any width; `$quarter`
/// is a macro `(x, a, b, d, bits)` for "a += b; d ^= a; d <<<= bits". The four quarter rounds
/// take turns, so that four chains of dependent instructions are in flight.
macro_rules! double_round {
    ($half:ident, $x:ident) => {
        $crate::chacha::double_round!(@four $half, $x,
            0 4 8 12, 1 5 9 13, 2 6 10 14, 3 7 11 15);
        $crate::chacha::double_round!(@four $half, $x,
            0 5 10 15, 1 6 11 12, 2 7 8 13, 3 4 9 14);
    };
    (@four $half:ident, $x:ident, $($a:literal $b:literal $c:literal $d:literal),+) => {
        $( $half!($x, $a, $b, $d, 16); )+
        $( $half!($x, $c, $d, $b, 12); )+
        $( $half!($x, $a, $b, $d, 8); )+
        $( $half!($x, $c, $d, $b, 7); )+
    };
}
pub(crate) use double_round;
