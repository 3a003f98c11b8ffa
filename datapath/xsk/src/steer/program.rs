//! The program, instruction by instruction.
//!
//! | register | holds |
//! |---|---|
//! | R6 | the context (`struct xdp_md`) |
//! | R2, R3 | first byte of the frame, first byte after it; lost by a call |
//! | R7 | the IP header |
//! | R8 | EtherType, later the UDP destination port; machine order |
//! | R9 | first byte of the IPv4 header: version and length |
//!
//! Every load from the frame follows a comparison of its end with R3: the verifier insists. Every
//! offset is a constant: the sum of a packet pointer and a variable would need CAP_PERFMON, and a
//! datapath with that could read the memory of the kernel. So a datagram for us with IP options
//! stays with the kernel; no WireGuard sends one.

use std::os::fd::BorrowedFd;

use super::SteerConfig;
use crate::assembler::If::{AnyBit, AtLeast, Equal, Greater, Less, NotEqual};
use crate::assembler::Reg::{R0, R1, R2, R3, R4, R6, R7, R8, R9, R10};
use crate::assembler::Width::{Eight, Four, One, Two};
use crate::assembler::{Assembler, BadJump, Label};

/// The maps that the program refers to.
#[derive(Clone, Copy)]
pub(super) struct Maps<'a> {
    pub(super) sockets: BorrowedFd<'a>,
    pub(super) addresses: BorrowedFd<'a>,
}

/// What a redirect does when the queue has no socket: `enum xdp_action`.
#[derive(Clone, Copy)]
#[repr(i32)]
pub(super) enum Miss {
    /// XDP_PASS.
    Pass = 2,
    /// XDP_TX, which the program gives for nothing else; so a trial run can see it.
    Show = 3,
}

/// Offsets in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE_INDEX: i16 = 16;

/// Helpers of include/uapi/linux/bpf.h.
const MAP_LOOKUP_ELEM: i32 = 1;
const REDIRECT_MAP: i32 = 51;

/// The address key, at R10 - 16.
const KEY: i16 = -16;

const UDP: i32 = 17;

/// Where the parts of the program end.
#[derive(Clone, Copy)]
struct Ends {
    pass: Label,
    redirect: Label,
    /// R8 is the UDP destination port of a packet for us.
    to_us: Label,
}

pub(super) fn assemble(
    config: &SteerConfig,
    maps: Maps<'_>,
    miss: Miss,
) -> Result<Vec<u64>, BadJump> {
    let mut asm = Assembler::default();
    let a = &mut asm;
    let ends = Ends { pass: a.label(), redirect: a.label(), to_us: a.label() };
    let v6 = a.label();

    a.copy(R6, R1);
    ethernet(a, ends);
    a.jump_if(R8, Equal, 0x86dd, v6);
    a.jump_if(R8, NotEqual, 0x0800, ends.pass);
    ipv4(a, config, maps, ends);
    a.bind(v6);
    ipv6(a, config, maps, ends);

    a.bind(ends.to_us);
    for listener in &config.listeners {
        a.jump_if(R8, Equal, i32::from(*listener), ends.redirect);
    }
    a.jump(ends.pass);

    // The verifier refuses code that no jump reaches.
    if config.segment || !config.listeners.is_empty() {
        a.bind(ends.redirect);
        a.load_map(R1, maps.sockets);
        a.load(Four, R2, R6, RX_QUEUE_INDEX);
        a.set(R3, miss as i32);
        a.call(REDIRECT_MAP);
        a.exit();
    }

    a.bind(ends.pass);
    a.set(R0, 2);
    a.exit();
    asm.finish()
}

/// Leaves the IP header in R7 and the EtherType in R8, behind one VLAN tag if there is one.
fn ethernet(a: &mut Assembler, ends: Ends) {
    let untagged = a.label();
    a.load(Four, R2, R6, DATA);
    a.load(Four, R3, R6, DATA_END);
    a.copy(R7, R2);
    a.add(R7, 14);
    a.jump_if_reg(R7, Greater, R3, ends.pass);
    a.load(One, R0, R2, 0);
    a.jump_if(R0, AnyBit, 1, ends.pass);
    a.load(Two, R8, R2, 12);
    a.byte_order(R8, 16);
    a.jump_if(R8, NotEqual, 0x8100, untagged);
    a.add(R7, 4);
    a.jump_if_reg(R7, Greater, R3, ends.pass);
    a.load(Two, R8, R2, 16);
    a.byte_order(R8, 16);
    a.bind(untagged);
}

fn ipv4(a: &mut Assembler, config: &SteerConfig, maps: Maps<'_>, ends: Ends) {
    let own = a.label();
    within(a, 20, ends);
    a.load(One, R9, R7, 0);
    // Version 4 and at least five words.
    a.jump_if(R9, Less, 0x45, ends.pass);
    a.jump_if(R9, AtLeast, 0x50, ends.pass);

    a.store_value(Eight, R10, KEY, 0);
    a.store_value(Four, R10, KEY + 8, 0xffff_0000_u32.cast_signed());
    a.load(Four, R8, R7, 16);
    a.store(Four, R10, KEY + 12, R8);
    look_up(a, maps);
    a.jump_if(R0, NotEqual, 0, own);

    if config.segment {
        a.byte_order(R8, 32);
        a.copy(R0, R8);
        a.shift_right(R0, 24);
        a.jump_if(R0, Equal, 0, ends.pass);
        a.jump_if(R0, Equal, 127, ends.pass);
        a.jump_if(R0, AtLeast, 224, ends.pass);
        a.shift_right(R8, 16);
        a.jump_if(R8, Equal, 0xa9fe, ends.pass);
        a.jump(ends.redirect);
    } else {
        a.jump(ends.pass);
    }

    a.bind(own);
    a.jump_if(R9, NotEqual, 0x45, ends.pass);
    a.load(One, R0, R7, 9);
    a.jump_if(R0, NotEqual, UDP, ends.pass);
    a.load(Two, R0, R7, 6);
    a.byte_order(R0, 16);
    // More fragments, or an offset.
    a.jump_if(R0, AnyBit, 0x3fff, ends.pass);
    within(a, 28, ends);
    a.load(Two, R8, R7, 22);
    a.byte_order(R8, 16);
    a.jump(ends.to_us);
}

fn ipv6(a: &mut Assembler, config: &SteerConfig, maps: Maps<'_>, ends: Ends) {
    let own = a.label();
    within(a, 40, ends);
    a.load(One, R0, R7, 0);
    a.shift_right(R0, 4);
    a.jump_if(R0, NotEqual, 6, ends.pass);

    a.load(Eight, R0, R7, 24);
    // ::/64, before the look-up: a mapped address on the wire must not find an IPv4 key.
    a.jump_if(R0, Equal, 0, ends.pass);
    a.store(Eight, R10, KEY, R0);
    a.load(Eight, R0, R7, 32);
    a.store(Eight, R10, KEY + 8, R0);
    look_up(a, maps);
    a.jump_if(R0, NotEqual, 0, own);

    if config.segment {
        a.load(Two, R8, R7, 24);
        a.byte_order(R8, 16);
        a.jump_if(R8, AtLeast, 0xff00, ends.pass);
        a.and(R8, 0xffc0);
        a.jump_if(R8, Equal, 0xfe80, ends.pass);
        a.jump(ends.redirect);
    } else {
        a.jump(ends.pass);
    }

    a.bind(own);
    a.load(One, R0, R7, 6);
    a.jump_if(R0, NotEqual, UDP, ends.pass);
    within(a, 48, ends);
    a.load(Two, R8, R7, 42);
    a.byte_order(R8, 16);
    a.jump(ends.to_us);
}

/// Passes unless `len` bytes from R7 are inside the frame.
fn within(a: &mut Assembler, len: i32, ends: Ends) {
    a.load(Four, R3, R6, DATA_END);
    a.copy(R4, R7);
    a.add(R4, len);
    a.jump_if_reg(R4, Greater, R3, ends.pass);
}

/// R0 = where the value for the key is in the address map, or 0.
fn look_up(a: &mut Assembler, maps: Maps<'_>) {
    a.load_map(R1, maps.addresses);
    a.copy(R2, R10);
    a.add(R2, i32::from(KEY));
    a.call(MAP_LOOKUP_ELEM);
}
