//! A server that answers as a test tells it to, byte for byte, and remembers what it was asked.
//!
//! It speaks just enough HTTP/1.1 to be wrong on purpose: answers are written as they are, so that lengths can lie and
//! connections can break.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The bytes that `Range` asks for.
    pub fn range(&self) -> Option<std::ops::Range<usize>> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some(first.parse().ok()?..last.parse::<usize>().ok()? + 1)
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Said instead of the body's real length; `None` for the real one.
    pub content_length: Option<usize>,
    /// Send the body in chunks, without a length.
    pub chunked: bool,
    /// Wait before the answer.
    pub delay: std::time::Duration,
    /// Close the connection when the body has been written.
    pub close: bool,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Says a longer length than comes, and breaks off.
    pub fn broken_after(mut self, len: usize) -> Self {
        self.content_length = Some(self.body.len());
        self.body.truncate(len);
        self.close = true;
        self
    }

    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    pub fn slow(mut self, delay: std::time::Duration) -> Self {
        self.delay = delay;
        self
    }

    /// 206 with these bytes of a blob.
    pub fn part(blob: &[u8], range: std::ops::Range<usize>) -> Self {
        Self::new(206, &blob[range.clone()])
            .header("content-range", format!("bytes {}-{}/{}", range.start, range.end - 1, blob.len()))
    }
}

type Script = Arc<dyn Fn(&Asked, usize) -> Answer + Send + Sync>;

/// The server; ends with this value.
pub struct Server {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    greetings: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts it. The script gets the request and its number, from 0.
    pub async fn start(script: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let greetings = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&greetings);
        let connections = Arc::new(AtomicUsize::new(0));
        let connected = Arc::clone(&connections);
        let (script, log): (Script, _) = (Arc::new(script), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connected.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&log), Arc::clone(&count)));
            }
        });
        Self { address, asked, greetings, connections, task }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections began with something that is no HTTP: a TLS greeting.
    pub fn greetings(&self) -> usize {
        self.greetings.load(Ordering::SeqCst)
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("whole").clone()
    }

    /// How often something was asked whose target contains `text`.
    pub fn count(&self, text: &str) -> usize {
        self.asked().iter().filter(|asked| asked.target.contains(text)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Script,
    log: Arc<Mutex<Vec<Asked>>>,
    greetings: Arc<AtomicUsize>,
) {
    let mut first = [0];
    if stream.peek(&mut first).await.is_ok_and(|len| len == 1) && !first[0].is_ascii_uppercase() {
        greetings.fetch_add(1, Ordering::SeqCst);
        return;
    }
    while let Some(asked) = read(&mut stream).await {
        let number = {
            let mut log = log.lock().expect("whole");
            log.push(asked.clone());
            log.len() - 1
        };
        let answer = script(&asked, number);
        tokio::time::sleep(answer.delay).await;
        if write(&mut stream, &asked, &answer).await.is_err() || answer.close {
            return;
        }
    }
}

/// Reads one request; `None` at the end.
async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let mut asked = Asked { method: first.next()?.into(), target: first.next()?.into(), ..Asked::default() };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        asked.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let len = asked.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
    asked.body = vec![0; len];
    stream.read_exact(&mut asked.body).await.ok()?;
    Some(asked)
}

async fn write(stream: &mut TcpStream, asked: &Asked, answer: &Answer) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} Scripted\r\n", answer.status);
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let has_length = answer.headers.iter().any(|(name, _)| name == "content-length");
    if answer.chunked {
        text.push_str("transfer-encoding: chunked\r\n");
    } else if !has_length {
        text.push_str(&format!("content-length: {}\r\n", answer.content_length.unwrap_or(answer.body.len())));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).await?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    if answer.chunked {
        for chunk in answer.body.chunks(1000) {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
            stream.write_all(chunk).await?;
            stream.write_all(b"\r\n").await?;
        }
        if !answer.close {
            stream.write_all(b"0\r\n\r\n").await?;
        }
    } else {
        stream.write_all(&answer.body).await?;
    }
    stream.flush().await
}
