//! Messages between the control process and the datapath
#![forbid(unsafe_code)]
