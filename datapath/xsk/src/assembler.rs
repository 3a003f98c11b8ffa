//! BPF instructions as methods, and forward jumps by label. Only what steering needs.
//!
//! An instruction is 64 bits: opcode 8, destination 4, source 4, offset 16 (signed), immediate 32
//! (signed). Encoding: Documentation/bpf/standardization/instruction-set.rst in the kernel.
//!
//! Jumps go forward only, so a program ends whatever the verifier thinks of it.

use std::os::fd::BorrowedFd;

use crate::bpf;

/// A register, of those that are used. R10 is the frame pointer: the stack is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R6 = 6,
    R7,
    R8,
    R9,
    R10,
}

/// Bytes of a load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Width {
    One = 0x10,
    Two = 0x08,
    Four = 0x00,
    Eight = 0x18,
}

/// When a jump is taken; all comparisons are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum If {
    Equal = 0x10,
    Greater = 0x20,
    AtLeast = 0x30,
    /// Any bit in common.
    AnyBit = 0x40,
    NotEqual = 0x50,
    Less = 0xa0,
}

/// A place ahead, to jump to. It is an error not to [`Assembler::bind`] it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// A program under construction.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    code: Vec<u64>,
    /// Where each label is, once that is known.
    labels: Vec<Option<usize>>,
    /// Jumps, and where they go.
    jumps: Vec<(usize, Label)>,
}

/// A jump goes to a label that is not bound ahead of it, or too far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the jump at instruction {0} goes nowhere, backwards or too far")]
pub(crate) struct BadJump(usize);

impl Assembler {
    /// A label for a place ahead.
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The next instruction is the place of `label`.
    pub(crate) fn bind(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(self.code.len());
        }
    }

    /// `to = from`
    pub(crate) fn copy(&mut self, to: Reg, from: Reg) {
        self.emit(0xbf, to, from, 0, 0);
    }

    /// `to = value`
    pub(crate) fn set(&mut self, to: Reg, value: i32) {
        self.emit(0xb7, to, Reg::R0, 0, value);
    }

    /// `to += value`
    pub(crate) fn add(&mut self, to: Reg, value: i32) {
        self.emit(0x07, to, Reg::R0, 0, value);
    }

    /// `to &= value`
    pub(crate) fn and(&mut self, to: Reg, value: i32) {
        self.emit(0x57, to, Reg::R0, 0, value);
    }

    /// `to >>= bits`, zeros from the left.
    pub(crate) fn shift_right(&mut self, to: Reg, bits: i32) {
        self.emit(0x77, to, Reg::R0, 0, bits);
    }

    /// Turns the low `bits` (16 or 32) of a register from network order to the machine's, and
    /// zeroes the rest.
    pub(crate) fn byte_order(&mut self, register: Reg, bits: i32) {
        self.emit(0xdc, register, Reg::R0, 0, bits);
    }

    /// `to = *(base + offset)`, zero-extended.
    pub(crate) fn load(&mut self, width: Width, to: Reg, base: Reg, offset: i16) {
        self.emit(0x61 | width as u8, to, base, offset, 0);
    }

    /// `*(base + offset) = from`
    pub(crate) fn store(&mut self, width: Width, base: Reg, offset: i16, from: Reg) {
        self.emit(0x63 | width as u8, base, from, offset, 0);
    }

    /// `*(base + offset) = value`, sign-extended.
    pub(crate) fn store_value(&mut self, width: Width, base: Reg, offset: i16, value: i32) {
        self.emit(0x62 | width as u8, base, Reg::R0, offset, value);
    }

    /// Goes to `label` if `left` compares so to `value` (sign-extended to 64 bits).
    pub(crate) fn jump_if(&mut self, left: Reg, how: If, value: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x05 | how as u8, left, Reg::R0, 0, value);
    }

    /// Goes to `label` if `left` compares so to `right`.
    pub(crate) fn jump_if_reg(&mut self, left: Reg, how: If, right: Reg, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x0d | how as u8, left, right, 0, 0);
    }

    /// Goes to `label`.
    pub(crate) fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.emit(0x05, Reg::R0, Reg::R0, 0, 0);
    }

    /// `to` = the map behind `fd` (BPF_PSEUDO_MAP_FD; two instruction slots).
    pub(crate) fn load_map(&mut self, to: Reg, fd: BorrowedFd<'_>) {
        self.emit(0x18, to, Reg::R1, 0, bpf::number(fd).cast_signed());
        self.code.push(0);
    }

    /// Calls the helper: arguments in R1 to R5, which are lost; result in R0.
    pub(crate) fn call(&mut self, helper: i32) {
        self.emit(0x85, Reg::R0, Reg::R0, 0, helper);
    }

    /// Ends with R0 as the result.
    pub(crate) fn exit(&mut self) {
        self.emit(0x95, Reg::R0, Reg::R0, 0, 0);
    }

    /// The instructions, with all jumps resolved.
    ///
    /// # Errors
    ///
    /// [`BadJump`] for the first jump that cannot be.
    pub(crate) fn finish(mut self) -> Result<Vec<u64>, BadJump> {
        for (from, label) in self.jumps {
            let to = self.labels.get(label.0).copied().flatten();
            // Counted from the next instruction.
            let offset = to.and_then(|to| to.checked_sub(from + 1)).map(i16::try_from);
            match (self.code.get_mut(from), offset) {
                (Some(instruction), Some(Ok(offset))) => {
                    *instruction |= u64::from(offset.cast_unsigned()) << 16;
                }
                (None | Some(_), _) => return Err(BadJump(from)),
            }
        }
        Ok(self.code)
    }

    fn emit(&mut self, opcode: u8, to: Reg, from: Reg, offset: i16, immediate: i32) {
        self.code.push(
            u64::from(opcode)
                | u64::from(to as u8) << 8
                | u64::from(from as u8) << 12
                | u64::from(offset.cast_unsigned()) << 16
                | u64::from(immediate.cast_unsigned()) << 32,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are worked out by hand from the instruction set's document.
    #[test]
    fn instructions_have_the_documented_encoding() {
        let mut asm = Assembler::default();
        let end = asm.label();
        asm.copy(Reg::R6, Reg::R1);
        asm.load(Width::Four, Reg::R2, Reg::R1, 4);
        asm.load(Width::Two, Reg::R0, Reg::R2, 12);
        asm.load(Width::Eight, Reg::R0, Reg::R2, 12);
        asm.load(Width::One, Reg::R0, Reg::R2, 12);
        asm.store(Width::Four, Reg::R10, -4, Reg::R0);
        asm.store_value(Width::Eight, Reg::R10, -16, -1);
        asm.jump_if(Reg::R0, If::NotEqual, 8, end);
        asm.jump_if_reg(Reg::R4, If::Greater, Reg::R3, end);
        asm.byte_order(Reg::R0, 32);
        asm.set(Reg::R0, 2);
        asm.bind(end);
        asm.exit();
        let bytes: Vec<_> = asm.finish().unwrap().iter().map(|code| code.to_le_bytes()).collect();
        let want = [
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0x61, 0x12, 4, 0, 0, 0, 0, 0],
            [0x69, 0x20, 12, 0, 0, 0, 0, 0],
            [0x79, 0x20, 12, 0, 0, 0, 0, 0],
            [0x71, 0x20, 12, 0, 0, 0, 0, 0],
            [0x63, 0x0a, 0xfc, 0xff, 0, 0, 0, 0],
            [0x7a, 0x0a, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff],
            [0x55, 0x00, 3, 0, 8, 0, 0, 0],
            [0x2d, 0x34, 2, 0, 0, 0, 0, 0],
            [0xdc, 0x00, 0, 0, 32, 0, 0, 0],
            [0xb7, 0x00, 0, 0, 2, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes, want);
    }

    #[test]
    fn a_jump_must_have_a_place_ahead() {
        let mut nowhere = Assembler::default();
        let label = nowhere.label();
        nowhere.jump(label);
        assert_eq!(nowhere.finish(), Err(BadJump(0)));

        let mut backwards = Assembler::default();
        let label = backwards.label();
        backwards.bind(label);
        backwards.jump(label);
        assert_eq!(backwards.finish(), Err(BadJump(0)));

        let mut far = Assembler::default();
        let label = far.label();
        far.jump(label);
        for _ in 0..=i16::MAX as usize {
            far.exit();
        }
        far.bind(label);
        assert_eq!(far.finish(), Err(BadJump(0)));
    }
}
