//! Shares of a stream in a pipe: one of our processes writes one after the other, and others take them in turn.
//!
//! ```text
//! length (4 bytes, little-endian)  so many bytes     again and again
//! 0      length of a word          the word          the share has ended; without a word it was the last
//! ```
//!
//! Whoever takes one reads not a byte of the next. An end that is missing is torn: what a writer leaves when it dies is no
//! whole share.

use std::io::{ErrorKind, Read, Write};

use anyhow::{Context, bail};

/// As much as comes together at most, and as long as a word is at most, in bytes.
const LONGEST: usize = 1 << 20;
const LONGEST_WORD: usize = 1 << 10;

/// Writes some bytes of a share.
///
/// # Errors
/// When nobody takes them.
pub fn write_bytes(to: &mut impl Write, bytes: &[u8]) -> anyhow::Result<()> {
    for piece in bytes.chunks(LONGEST) {
        write_length(to, piece.len())?;
        to.write_all(piece).context("cannot pass the stream on")?;
    }
    Ok(())
}

/// Ends a share, with a word for whoever took it when another one follows.
///
/// # Errors
/// When nobody takes it.
pub fn write_end(to: &mut impl Write, word: Option<&str>) -> anyhow::Result<()> {
    let word = word.unwrap_or_default();
    write_length(to, 0)?;
    write_length(to, word.len())?;
    to.write_all(word.as_bytes()).context("cannot pass the stream on")
}

fn write_length(to: &mut impl Write, length: usize) -> anyhow::Result<()> {
    let length = u32::try_from(length).context("too much at once")?;
    to.write_all(&length.to_le_bytes()).context("cannot pass the stream on")
}

/// Reads a share to its end, and answers with the word there, if another one follows.
///
/// # Errors
/// When it is torn, or `take` fails.
pub fn read_share(
    mut from: impl Read,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Option<String>> {
    let mut piece = vec![0; LONGEST];
    loop {
        let length = read_length(&mut from)?;
        if length == 0 {
            break;
        }
        let Some(piece) = piece.get_mut(..length) else { bail!("the share is none") };
        fill(&mut from, piece)?;
        take(piece)?;
    }
    let length = read_length(&mut from)?;
    if length > LONGEST_WORD {
        bail!("the share is none");
    }
    let mut word = vec![0; length];
    fill(&mut from, &mut word)?;
    let word = String::from_utf8(word).context("the share is none")?;
    Ok(Some(word).filter(|word| !word.is_empty()))
}

fn read_length(from: &mut impl Read) -> anyhow::Result<usize> {
    let mut length = [0; 4];
    fill(from, &mut length)?;
    Ok(u32::from_le_bytes(length) as usize)
}

fn fill(from: &mut impl Read, bytes: &mut [u8]) -> anyhow::Result<()> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => anyhow::anyhow!("the share is torn"),
        _ => anyhow::Error::new(error).context("cannot read the share"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(from: &mut &[u8]) -> anyhow::Result<(Vec<u8>, Option<String>)> {
        let mut taken = Vec::new();
        let word = read_share(from, |bytes| {
            taken.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok((taken, word))
    }

    #[test]
    fn each_reads_its_share_and_nothing_of_the_next() {
        let mut pipe = Vec::new();
        write_bytes(&mut pipe, b"first").unwrap();
        write_bytes(&mut pipe, b"").unwrap();
        write_bytes(&mut pipe, b" part").unwrap();
        write_end(&mut pipe, Some("0:9:x")).unwrap();
        let long = vec![b'x'; LONGEST + 7];
        write_bytes(&mut pipe, &long).unwrap();
        write_end(&mut pipe, None).unwrap();
        let mut left = pipe.as_slice();
        assert_eq!(read(&mut left).unwrap(), (b"first part".to_vec(), Some("0:9:x".into())));
        assert_eq!(read(&mut left).unwrap(), (long, None));
        assert_eq!(left, b"");
        for length in 0..30 {
            let error = read(&mut &pipe[..length]).unwrap_err();
            assert_eq!(error.to_string(), "the share is torn", "{length}");
        }
        let mut none = u32::MAX.to_le_bytes().to_vec();
        none.extend([0; 100]);
        assert_eq!(read(&mut none.as_slice()).unwrap_err().to_string(), "the share is none");
    }
}
