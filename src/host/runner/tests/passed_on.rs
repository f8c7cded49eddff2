//! Output that is passed on to our own.

use std::fs::File;
use std::io::Read;

use super::*;

fn talks(script: &str) -> CommandSpec {
    let mut spec = python(script);
    spec.stdout = StdoutMode::PassOn;
    spec
}

fn to(file: File, spec: &CommandSpec) -> Result<Completed, RunError> {
    Ok(runner().0.chain_to(&[], spec, Some(file), &mut |_, _| {})?.last)
}

/// Writes three million bytes, and says on standard error how it ended.
const MUCH: &str = "
import os, signal, sys
def stop(*_):
    print('told to stop', file=sys.stderr)
    os._exit(7)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
for _ in range(3000):
    sys.stdout.write('x' * 1000)
";

#[test]
fn all_of_it_arrives_however_slowly_it_is_taken() {
    let (mut reading, writing) = std::io::pipe().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut all, mut some) = (Vec::new(), [0; 50_000]);
        loop {
            match reading.read(&mut some).unwrap() {
                0 => return all,
                count => all.extend_from_slice(&some[..count]),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let fd: std::os::fd::OwnedFd = writing.into();
    let ended = to(fd.into(), &talks(MUCH)).unwrap();
    assert!(ended.success());
    assert_eq!(reader.join().unwrap(), vec![b'x'; 3_000_000]);
    // The last one of a chain passes on, too.
    let file = tempfile::NamedTempFile::new().unwrap();
    let last = CommandSpec { stdout: StdoutMode::PassOn, ..shell("tr x y") };
    let sent = file.reopen().unwrap();
    let chained = runner().0.chain_to(&[python(MUCH)], &last, Some(sent), &mut |_, _| {}).unwrap();
    assert!(chained.failed_before().is_none() && chained.last.success());
    assert_eq!(std::fs::read(file.path()).unwrap(), vec![b'y'; 3_000_000]);
    // Where another one of it fails, that is told, and not that standard output took no more.
    let sent = file.reopen().unwrap();
    let torn = [shell("echo half; sleep 0.3; exit 3")];
    let chained = runner().0.chain_to(&torn, &last, Some(sent), &mut |_, _| {}).unwrap();
    assert_eq!(chained.failed_before().map(|one| one.exit), Some(Exit::Code(3)));
    assert!(!chained.last.success());
    // A file takes it in larger pieces.
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(to(file.reopen().unwrap(), &talks(MUCH)).unwrap().success());
    assert_eq!(std::fs::read(file.path()).unwrap(), vec![b'x'; 3_000_000]);
}

#[test]
fn where_nothing_more_is_taken_the_child_is_stopped_and_it_is_told() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let failed = to(full, &talks(MUCH)).unwrap_err();
    assert_eq!(failed.to_string(), "standard output has no space left after 0 bytes");

    let (mut reading, writing) = std::io::pipe().unwrap();
    let reader = std::thread::spawn(move || reading.read_exact(&mut [0; 9000]).unwrap());
    let (runner, _) = runner();
    let mut said = Vec::new();
    let fd: std::os::fd::OwnedFd = writing.into();
    let failed = runner
        .chain_to(&[], &talks(MUCH), Some(fd.into()), &mut |stream, line| {
            if stream == Stream::Err {
                said.push(text(line));
            }
        })
        .unwrap_err();
    reader.join().unwrap();
    let RunError::Output { bytes, .. } = &failed else { panic!("{failed:?}") };
    assert!((9000..3_000_000).contains(bytes), "{bytes}");
    assert_eq!(failed.to_string(), format!("standard output was closed after {bytes} bytes"));
    // An engine that dies of a closed pipe leaves its lock.
    assert_eq!(said, ["told to stop"]);
}

#[test]
fn a_signal_ends_the_wait_for_a_reader_that_never_comes() {
    for script in [MUCH, "print('x' * 20000)"] {
        let (reading, writing) = std::io::pipe().unwrap();
        nix::fcntl::fcntl(&writing, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let (runner, stop) = impatient();
        let signal = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            stop.raise(15);
        });
        let fd: std::os::fd::OwnedFd = writing.into();
        let failed =
            runner.chain_to(&[], &talks(script), Some(fd.into()), &mut |_, _| {}).unwrap_err();
        assert_eq!(failed.signal(), Some(15), "{failed:?}");
        signal.join().unwrap();
        drop(reading);
    }
}
