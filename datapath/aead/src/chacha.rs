//! What all ChaCha20 kernels share: where the blocks of a batch come from and go to.
//!
//! The messages of a group are cut into [`Span`]s, a kernel asks [`Blocks`] for as many blocks as it
//! has lanes, whichever spans they belong to, and XORs each with its piece of text. A kernel never
//! sees a message, so that none of its lanes idles while there is a block left.

/// Bytes of a block.
pub(crate) const BLOCK_LEN: usize = 64;

/// "expand 32-byte k" (RFC 8439 §2.3).
pub(crate) const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The input of the block function, in the order of RFC 8439 §2.3: constants, key, counter, nonce.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Row(pub(crate) [u32; 16]);

impl Row {
    pub(crate) const ZERO: Self = Self([0; 16]);

    pub(crate) const fn new(key: &[u32; 8], nonce: &[u8; 12], counter: u32) -> Self {
        let [c0, c1, c2, c3] = CONSTANTS;
        let [k0, k1, k2, k3, k4, k5, k6, k7] = *key;
        let [a0, a1, a2, a3, b0, b1, b2, b3, d0, d1, d2, d3] = *nonce;
        let n0 = u32::from_le_bytes([a0, a1, a2, a3]);
        let n1 = u32::from_le_bytes([b0, b1, b2, b3]);
        let n2 = u32::from_le_bytes([d0, d1, d2, d3]);
        Self([c0, c1, c2, c3, k0, k1, k2, k3, k4, k5, k6, k7, counter, n0, n1, n2])
    }

    pub(crate) fn count(&mut self, blocks: u32) {
        let [.., counter, _, _, _] = &mut self.0;
        *counter = counter.wrapping_add(blocks);
    }
}

/// A stretch of text, and the input of its first block.
pub(crate) struct Span<'a> {
    row: Row,
    text: &'a mut [u8],
}

impl<'a> Span<'a> {
    /// The key stream from the block of `row` on goes over `text`.
    pub(crate) const fn new(row: Row, text: &'a mut [u8]) -> Self {
        Self { row, text }
    }

    const fn empty() -> Self {
        Self { row: Row::ZERO, text: &mut [] }
    }
}

/// The blocks of a sequence of spans.
pub(crate) struct Blocks<'s, 'a> {
    spans: &'s mut dyn Iterator<Item = Span<'a>>,
    current: Span<'a>,
}

/// One step of a kernel with `N` lanes: the input of each block, and the text that it goes over.
pub(crate) struct Step<'a, const N: usize> {
    pub(crate) rows: [Row; N],
    pub(crate) texts: [&'a mut [u8]; N],
    /// How many lanes have a block. The texts of the others are empty.
    pub(crate) used: usize,
    /// All blocks are successive ones of one message; then only the first row is filled in.
    pub(crate) successive: bool,
}

impl<'a, const N: usize> Step<'a, N> {
    pub(crate) fn new() -> Self {
        Self {
            rows: [Row::ZERO; N],
            texts: core::array::from_fn(|_| Default::default()),
            used: 0,
            successive: false,
        }
    }
}

impl<'s, 'a> Blocks<'s, 'a> {
    pub(crate) fn new(spans: &'s mut dyn Iterator<Item = Span<'a>>) -> Self {
        Self { spans, current: Span::empty() }
    }

    /// Fills a step with the next blocks. Returns whether there were any.
    #[inline]
    pub(crate) fn fill<const N: usize>(&mut self, step: &mut Step<'a, N>) -> bool {
        step.successive = self.current.text.len() >= N * BLOCK_LEN;
        if step.successive {
            return self.fill_from_one(step);
        }
        step.used = 0;
        for (row, text) in step.rows.iter_mut().zip(&mut step.texts) {
            while self.current.text.is_empty()
                && let Some(span) = self.spans.next()
            {
                self.current = span;
            }
            let len = self.current.text.len().min(BLOCK_LEN);
            *row = self.current.row;
            *text = split_off_front(&mut self.current.text, len);
            self.current.row.count(1);
            step.used += usize::from(len > 0);
        }
        step.used > 0
    }

    fn fill_from_one<const N: usize>(&mut self, step: &mut Step<'a, N>) -> bool {
        if let Some(first) = step.rows.first_mut() {
            *first = self.current.row;
        }
        let whole = split_off_front(&mut self.current.text, N * BLOCK_LEN);
        for (text, block) in step.texts.iter_mut().zip(whole.chunks_mut(BLOCK_LEN)) {
            *text = block;
        }
        for _ in 0..N {
            self.current.row.count(1);
        }
        step.used = N;
        true
    }
}

/// Takes the first `len` bytes of a slice, or all if it is shorter.
#[inline]
fn split_off_front<'a>(text: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    let all = core::mem::take(text);
    let (front, rest) = all.split_at_mut(len.min(all.len()));
    *text = rest;
    front
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
