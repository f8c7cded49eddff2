//! A value that must never be shown, nor outlive its use.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes that no log, error, plan or debug output may hold. `Debug` and `Display` print `***`. When the value is
/// dropped, its memory is overwritten, so that neither a core file nor a later allocation holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Wraps the bytes. A vector is taken over as it is, without a copy that would stay behind.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes, for the one place that hands them to a child.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }

    /// The same without the one line break at its end that belongs to the file or the output it came from.
    #[must_use]
    pub fn without_line_break(mut self) -> Self {
        if self.0.last() == Some(&b'\n') {
            self.0.pop();
        }
        self
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_is_dropped_is_no_longer_in_memory() {
        const SIGN: u8 = 0xa7;
        let memory = File::open("/proc/self/mem").unwrap();
        let signs_at = |address: u64| -> std::io::Result<usize> {
            let mut seen = [0; 4096];
            memory.read_exact_at(&mut seen, address)?;
            Ok(seen.iter().filter(|byte| **byte == SIGN).count())
        };
        let secret = Secret::new(vec![SIGN; 4096]).without_line_break();
        let address = secret.reveal().as_ptr() as u64;
        assert_eq!(signs_at(address).unwrap(), 4096);
        drop(secret);
        // The allocator may have given it back to the kernel, or to another thread, whose bytes are of any kind.
        let left = signs_at(address).unwrap_or(0);
        assert!(left < 256, "{left} of 4096 bytes are left");
    }

    #[test]
    fn one_line_break_is_not_part_of_it() {
        for (given, kept) in [("a \n\n", "a \n"), ("a", "a"), ("\n", ""), ("", "")] {
            assert_eq!(Secret::new(given).without_line_break().reveal(), kept.as_bytes());
        }
    }
}
