//! The kinds of values that more than one table has.
//!
//! Whatever passes here is safe as one operand of a command: no value that a program would read as an
//! option, none with a NUL byte, no path whose meaning depends on a working directory.

mod argv;
mod number;
mod text;

pub use argv::{ARGV, ARGVS};
pub use number::{FLAG, LONG_SPAN, PERCENT, SPAN, Whole, Within};
pub use text::{FILE_NAME, HOST, PATH, PATHS, PATTERNS, TEXT, TEXTS, text};
