//! What a command prints that is a secret.

use std::fs::File;
use std::os::unix::fs::FileExt;

use zeroize::{Zeroize, Zeroizing};

use super::*;

/// The secret from its last letter to its first, so that neither the command nor the test holds it.
const TURNED: &str = "dloh-ot-demia-saw-taht-rotcev-a-ni-ton-gnihcraes-htrow-si-taht-terces";

/// Which part of it is searched for: an allocator writes into the beginning of memory that was given back, and a
/// vector that has grown leaves no end behind.
const PART: std::ops::Range<usize> = 20..32;

/// How often the secret is in the memory that this process can write to.
fn found_in_memory() -> usize {
    const CHUNK: usize = 256 * 1024;
    let part = || TURNED.bytes().rev().skip(PART.start).take(PART.len());
    let first = part().next().unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut seen = Zeroizing::new(vec![0; CHUNK + PART.len()]);
    let own = seen.as_ptr() as u64;
    let mut found = 0;
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut words = line.split(' ');
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let end = u64::from_str_radix(to, 16).unwrap();
        let mut at = u64::from_str_radix(from, 16).unwrap();
        while at < end {
            // What has gone meanwhile, and the end of a region, are read in part or not at all.
            let count = memory.read_at(&mut seen, at).unwrap_or(0);
            let is_secret = |start: &usize| {
                let is_own = (own..own + seen.len() as u64).contains(&(at + *start as u64));
                let mut letters = seen[*start..].iter().zip(part());
                !is_own && seen[*start] == first && letters.all(|(seen, letter)| *seen == letter)
            };
            found += (0..count.min(CHUNK)).filter(is_secret).count();
            seen.as_mut_slice().zeroize();
            at += CHUNK as u64;
        }
    }
    found
}

#[test]
fn a_secret_that_a_command_prints_is_in_our_memory_as_long_as_it_is_held() {
    let at_once = format!("print('{TURNED}'[::-1], end='')");
    let in_parts = format!(
        "import time\nfor part in '{TURNED}'[::-1]: print(part, end='', flush=True); time.sleep(0.003)"
    );
    for script in [at_once, in_parts] {
        let mut spec = python(&script);
        spec.stdout = StdoutMode::Secret;
        let mut completed = runner().0.run(&spec, &mut |_, line| panic!("{line:?}")).unwrap();
        assert!(completed.success());
        let secret = Secret::new(std::mem::take(&mut completed.stdout));
        assert!(secret.reveal().iter().rev().eq(TURNED.as_bytes()));
        assert_eq!(found_in_memory(), 1, "{script}");
        drop(secret);
        assert_eq!(found_in_memory(), 0, "{script}");
    }
}
