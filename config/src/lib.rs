//! What an operator writes: text to typed configuration, every mistake at once
#![forbid(unsafe_code)]
