//! The compiled policy as flat tables: format, validated view, slow twin
#![forbid(unsafe_code)]
