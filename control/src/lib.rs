//! The Bulkhead control process and its command line.
//!
//! ```text
//!   bulkhead ── control.sock ──▶ daemon ──▶ state ──▶ link_end ── link.sock ──▶ datapath
//!   (cli)        api               │          │  └──▶ handshake_thread ─▶ handshake ─▶ outer
//!                                  │          └─────▶ intent, publish     the file, the table
//!                                  └────────────────▶ mirror ─▶ neighbour, interface   the kernel
//!   wg ── NAME.sock ──▶ userspace_socket ─▶ daemon ─▶ figures ─▶ userspace_api           read only
//! ```
//!
//! The daemon is a shell around [`state`] (what is in force, and what is under way), [`handshake`]
//! (the static key and all peers) and [`neighbour`], which are sans-IO and tested without sockets.
//!
//! INVARIANT: the datapath goes on whatever happens here. This process never ends it but at an
//! operator's explicit wish, and takes it over as it finds it.
#![forbid(unsafe_code)]

pub mod aligned;
pub mod api;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod config_file;
pub mod consumers;
pub mod control_socket;
pub mod daemon;
pub mod detach;
pub mod dry_run;
pub mod fact_files;
pub mod figures;
pub mod flow_log;
pub mod handshake;
pub mod handshake_thread;
pub mod history;
pub mod import;
pub mod intent;
pub mod interface;
pub mod key_file;
pub mod knowledge;
pub mod link_end;
pub mod mirror;
pub mod names;
pub mod neighbour;
pub mod outer;
pub mod pool;
pub mod publish;
pub mod run_dir;
pub mod slots;
pub mod state;
pub mod supervisor;
pub mod timestamps;
pub mod userspace_api;
pub mod userspace_socket;
pub mod wall_timer;
pub mod wg_quick;
