//! `joulectl top`: a frame per tick, until Ctrl-C. Leaves nothing to restore on the terminal: it only moves the cursor
//! home, clears and prints, in neither raw mode nor the alternate screen.

use super::client::{Client, ClientError, Stream};
use super::{Error, text, top};
use crate::model::snapshot::Snapshot;
use std::io::Write;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Pause between two attempts to connect again.
const RETRY: Duration = Duration::from_secs(1);
/// Attempts before giving up where the output is not a terminal, so that a script does not wait for ever.
const TRIES: u32 = 30;

/// Shows `count` ticks, or all of them until SIGINT or SIGTERM. Connects again where the connection is lost, but not
/// where the first attempt fails.
///
/// # Errors
/// Where the first attempt to connect fails, the connection is lost for good and `out` is not a terminal, or `out`
/// cannot be written.
pub async fn run(client: &Client, count: Option<u64>, json: bool, out: &mut dyn Write) -> Result<(), Error> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut resized = signal(SignalKind::window_change())?;
    let mut stream = Some(client.stream().await?);
    let mut screen = Screen { out, json, started: false, last: None, note: String::new() };
    let (mut shown, mut tries) = (0, 0);
    while count.is_none_or(|count| shown < count) {
        let next = async {
            match &mut stream {
                Some(stream) => stream.next().await.map(Event::from),
                None => {
                    tokio::time::sleep(RETRY).await;
                    client.stream().await.map(Event::Back)
                }
            }
        };
        let event = tokio::select! {
            event = next => event,
            _ = resized.recv() => {
                screen.redraw()?;
                continue;
            }
            _ = interrupt.recv() => {
                // The terminal has printed ^C; a prompt should not follow on the same line.
                if screen.is_live() {
                    writeln!(screen.out)?;
                }
                break;
            }
            _ = terminate.recv() => break,
        };
        match event {
            Ok(Event::Tick(snapshot)) => {
                (shown, tries) = (shown + 1, 0);
                screen.show(*snapshot)?;
            }
            Ok(Event::Back(new)) => stream = Some(new),
            // Another attempt would give the same answer.
            Err(error @ ClientError::OtherVersion(..)) => return Err(error.into()),
            Ok(Event::End) | Err(_) => {
                stream = None;
                tries += 1;
                let why =
                    event.err().map_or_else(|| "jouled ended the connection".to_owned(), |error| error.to_string());
                if tries > TRIES && !screen.is_live() {
                    return Err(Error::Lost(why));
                }
                screen.say(&format!("NO CONNECTION, trying again: {why}"))?;
            }
        }
    }
    Ok(())
}

enum Event {
    Tick(Box<Snapshot>),
    End,
    Back(Stream),
}

impl From<Option<Snapshot>> for Event {
    fn from(next: Option<Snapshot>) -> Self {
        next.map_or(Self::End, |snapshot| Self::Tick(Box::new(snapshot)))
    }
}

struct Screen<'a> {
    out: &'a mut dyn Write,
    json: bool,
    started: bool,
    last: Option<Snapshot>,
    note: String,
}

impl Screen<'_> {
    /// Whether frames replace each other on a terminal.
    fn is_live(&self) -> bool {
        !self.json && text::terminal_size().is_some()
    }

    fn show(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        self.note.clear();
        self.last = Some(snapshot);
        self.redraw()
    }

    /// Reports the lost connection: above the old numbers on a terminal, else once on standard error.
    fn say(&mut self, note: &str) -> Result<(), Error> {
        if self.is_live() {
            self.note = note.to_owned();
            return self.redraw();
        }
        if self.note.is_empty() {
            self.note = note.to_owned();
            writeln!(std::io::stderr(), "joulectl: {note}")?;
        }
        Ok(())
    }

    fn redraw(&mut self) -> Result<(), Error> {
        let Some(snapshot) = &self.last else {
            return Ok(());
        };
        let size = text::terminal_size().filter(|_| !self.json);
        let frame = match size {
            _ if self.json => text::json_line(&top::json(snapshot)) + "\n",
            None => top::lines(snapshot, None, "").join("\n") + "\n\n",
            Some(size) => {
                // The cursor keeps a line of its own, so that what follows (a prompt, ^C) overwrites nothing.
                let room = text::Size { rows: size.rows.saturating_sub(1), ..size };
                let mut frame = String::new();
                if !self.started {
                    // What was on the screen moves into the scrollback.
                    frame.push_str(&"\n".repeat(size.rows));
                }
                frame.push_str("\x1b[H");
                for line in top::lines(snapshot, Some(room), &self.note) {
                    frame.push_str(&line);
                    frame.push_str("\x1b[K\n");
                }
                frame.push_str("\x1b[J");
                frame
            }
        };
        self.started = true;
        self.out.write_all(frame.as_bytes())?;
        Ok(self.out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::{CHUNKED, chunk, fake};
    use super::super::fixture;
    use super::*;

    fn one_tick() -> Vec<u8> {
        let line = serde_json::to_string(&fixture::snapshot()).unwrap() + "\n";
        format!("{CHUNKED}{}0\r\n\r\n", chunk(&line)).into_bytes()
    }

    #[tokio::test]
    async fn a_jouled_that_restarts_is_found_again() {
        let server = fake(vec![one_tick(), one_tick()], false);
        let mut out = Vec::new();
        run(&server.client, Some(2), true, &mut out).await.unwrap();
        let lines: Vec<_> = std::str::from_utf8(&out).unwrap().lines().collect();
        assert_eq!(lines.len(), 2);
        let value: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(value["entities"][0]["labels"]["unit"], "nginx.service");
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_is_no_failure() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let failure = run(&fake(vec![one_tick()], false).client, None, true, &mut Closed).await.unwrap_err();
        assert!(failure.is_closed_pipe(), "{failure}");
    }

    #[tokio::test]
    async fn a_jouled_that_never_was_is_not_waited_for() {
        let client = Client::new("no-such-folder/jouled.sock".into());
        let failure = run(&client, None, false, &mut Vec::new()).await.unwrap_err();
        assert!(failure.to_string().starts_with("jouled is not running"), "{failure}");
    }
}
