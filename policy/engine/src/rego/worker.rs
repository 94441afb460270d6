//! Evaluates in a process that the guest can do without: what is said over the socket between
//! the guest's agent and that process, and the process's side of it.
//!
//! A frame is a count of parts, then each part's length and bytes; numbers have 32 bits, the
//! lowest byte first. One question is under way at a time. The process answers, or ends: it may
//! take no more memory than its parent gave it, and it ends itself when a question takes too
//! long.

use std::{
    io::{self, ErrorKind, Read, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    EVALUATION_MAX, Evaluate, Failure, INPUT_BYTES_MAX, Interpreter, LoadError, Question,
    TEXT_BYTES_MAX,
};

/// How long it may take until a text is loaded.
pub const LOAD_MAX: Duration = Duration::from_secs(60);
/// Beyond [`EVALUATION_MAX`], for a single function that takes long.
const GRACE: Duration = Duration::from_secs(2);
const PARTS_MAX: usize = 8;
const FRAME_BYTES_MAX: usize = (TEXT_BYTES_MAX + INPUT_BYTES_MAX) * 2;

const LOAD: &[u8] = b"load";
const ASK: &[u8] = b"ask";
const DONE: &[u8] = b"done";
const FAILED: &[u8] = b"failed";

/// How long the answer to one question can take.
#[must_use]
pub fn answer_max() -> Duration {
    EVALUATION_MAX.saturating_add(GRACE)
}

/// The asking side.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    state_version: Option<u64>,
}

impl<S: Read + Write> Client<S> {
    /// Asks over this stream.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            state_version: None,
        }
    }

    /// The stream.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Has a text loaded.
    ///
    /// # Errors
    ///
    /// When nobody answers; inside, when the text is refused.
    pub fn load(&mut self, text: &str) -> io::Result<Result<(), LoadError>> {
        write_frame(&mut self.stream, &[LOAD, text.as_bytes()])?;
        let answer: Result<Answer, _> = self.answer()?;
        Ok(answer.map(drop))
    }

    /// Asks a rule.
    ///
    /// # Errors
    ///
    /// When nobody answers; inside, when there is no answer.
    pub fn ask(&mut self, question: &Question<'_>) -> io::Result<Result<Option<String>, Failure>> {
        let known = self.state_version == Some(question.state_version);
        let state = if known { "" } else { question.state };
        let version = question.state_version.to_le_bytes();
        let parts = [
            ASK,
            question.rule.as_bytes(),
            &version,
            state.as_bytes(),
            question.input.as_bytes(),
        ];
        write_frame(&mut self.stream, &parts)?;
        let answer = self.answer()?;
        self.state_version = Some(question.state_version);
        Ok(answer.map(|Answer(value)| value))
    }

    fn answer<E: DeserializeOwned>(&mut self) -> io::Result<Result<Answer, E>> {
        let parts = read_frame(&mut self.stream)?;
        match &parts[..] {
            [kind] if kind == DONE => Ok(Ok(Answer(None))),
            [kind, value] if kind == DONE => Ok(Ok(Answer(Some(text(value)?.to_owned())))),
            [kind, error] if kind == FAILED => Ok(Err(
                agent_documents::parse_json(error).map_err(io::Error::from)?
            )),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }
}

struct Answer(Option<String>);

/// Answers until the other side ends.
///
/// # Errors
///
/// When what comes has no known form, or cannot be answered.
pub fn serve(mut questions: impl Read, answers: impl Write + Send + 'static) -> io::Result<()> {
    let answers = Arc::new(Mutex::new(answers));
    let watch = Arc::new(Watch::default());
    let (watched, told) = (Arc::clone(&watch), Arc::clone(&answers));
    thread::Builder::new().spawn(move || watched.end_at_deadline(&told))?;
    let mut worker = Worker::default();
    loop {
        let parts = match read_frame(&mut questions) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            parts => parts?,
        };
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        watch.start(match parts.first() {
            Some(&kind) if kind == LOAD => LOAD_MAX,
            _ => answer_max(),
        });
        let answer = worker.answer(&parts)?;
        watch.stop();
        let answer: Vec<&[u8]> = answer.iter().map(Vec::as_slice).collect();
        write_frame(&mut *lock(&answers), &answer)?;
    }
}

#[derive(Default)]
struct Worker {
    interpreter: Option<Interpreter>,
    state: String,
    state_version: u64,
}

impl Worker {
    fn answer(&mut self, parts: &[&[u8]]) -> io::Result<Vec<Vec<u8>>> {
        match *parts {
            [LOAD, content] => match Interpreter::load(text(content)?) {
                Ok(interpreter) => {
                    self.interpreter = Some(interpreter);
                    Ok(vec![DONE.to_vec()])
                }
                Err(error) => failed(&error),
            },
            [ASK, rule, version, state, input] => {
                if !state.is_empty() {
                    text(state)?.clone_into(&mut self.state);
                    let version = version.try_into();
                    let version = version.map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
                    self.state_version = u64::from_le_bytes(version);
                }
                self.ask(text(rule)?, text(input)?)
            }
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn ask(&mut self, rule: &str, input: &str) -> io::Result<Vec<Vec<u8>>> {
        let question = Question {
            rule,
            state: &self.state,
            state_version: self.state_version,
            input,
        };
        let interpreter = self.interpreter.as_mut();
        let answer = interpreter.map_or(Err(Failure::Process), |one| one.evaluate(&question));
        match answer {
            Ok(None) => Ok(vec![DONE.to_vec()]),
            Ok(Some(value)) => Ok(vec![DONE.to_vec(), value.into_bytes()]),
            Err(failure) => failed(&failure),
        }
    }
}

fn failed<E: Serialize>(error: &E) -> io::Result<Vec<Vec<u8>>> {
    Ok(vec![FAILED.to_vec(), serde_json::to_vec(error)?])
}

/// Ends the process when an answer takes too long, whatever the evaluation is doing.
#[derive(Default)]
struct Watch {
    deadline: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Watch {
    fn start(&self, max: Duration) {
        *lock(&self.deadline) = Instant::now().checked_add(max);
        self.changed.notify_one();
    }

    fn stop(&self) {
        *lock(&self.deadline) = None;
    }

    fn end_at_deadline(&self, answers: &Mutex<impl Write>) {
        let mut deadline = lock(&self.deadline);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            deadline = match left {
                None => self.changed.wait(deadline),
                Some(left) if !left.is_zero() => {
                    let waited = self.changed.wait_timeout(deadline, left);
                    waited
                        .map(|(deadline, _)| deadline)
                        .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0))
                }
                Some(_) => break,
            }
            .unwrap_or_else(PoisonError::into_inner);
        }
        // Nobody else writes: the other thread is evaluating, or waits for the deadline's lock.
        if let Ok(answer) = failed(&Failure::Time) {
            let answer: Vec<&[u8]> = answer.iter().map(Vec::as_slice).collect();
            let _ = write_frame(&mut *lock(answers), &answer);
        }
        std::process::exit(1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| ErrorKind::InvalidData.into())
}

fn write_frame(to: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let number = |len: usize| u32::try_from(len).map(u32::to_le_bytes);
    let mut frame = Vec::new();
    let too_long = |_| io::Error::from(ErrorKind::InvalidInput);
    frame.extend(number(parts.len()).map_err(too_long)?);
    for part in parts {
        frame.extend(number(part.len()).map_err(too_long)?);
        frame.extend_from_slice(part);
    }
    to.write_all(&frame)?;
    to.flush()
}

fn read_frame(from: &mut impl Read) -> io::Result<Vec<Vec<u8>>> {
    let mut left = FRAME_BYTES_MAX;
    let parts = read_number(from)?;
    if parts > PARTS_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut frame = Vec::new();
    for _ in 0..parts {
        let len = read_number(from)?;
        left = left.checked_sub(len).ok_or(ErrorKind::InvalidData)?;
        let mut part = Vec::new();
        let len = u64::try_from(len).map_err(|_| ErrorKind::InvalidData)?;
        from.take(len).read_to_end(&mut part)?;
        if u64::try_from(part.len()) != Ok(len) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        frame.push(part);
    }
    Ok(frame)
}

fn read_number(from: &mut impl Read) -> io::Result<usize> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| ErrorKind::InvalidData.into())
}
