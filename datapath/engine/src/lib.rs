//! One core's packet loop: rx, steer, open, judge, route, seal, tx
#![forbid(unsafe_code)]
