//! A writer that the progress bars can draw on.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::TermLike;

/// Standard error (or a test's buffer), shared between lines and bars. Cursor movements are the control
/// sequences of ECMA-48, which every terminal but a dumb one knows.
#[derive(Clone)]
pub(super) struct Screen {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    width: u16,
}

impl Screen {
    pub(super) fn new(out: Box<dyn Write + Send>, width: u16) -> Screen {
        Screen { out: Arc::new(Mutex::new(out)), width }
    }

    /// Writes a line in one piece, so that it cannot be torn by another process that writes there.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        self.write(&format!("{text}\n"))?;
        self.flush()
    }

    fn write(&self, text: &str) -> io::Result<()> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes())
    }

    fn move_cursor(&self, cells: usize, direction: char) -> io::Result<()> {
        if cells == 0 {
            return Ok(());
        }
        self.write(&format!("\x1b[{cells}{direction}"))
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("width", &self.width).finish_non_exhaustive()
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.width
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write(&format!("{text}\r\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.write(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}
