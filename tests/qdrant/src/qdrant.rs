//! The engine's process.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nearhop_test_server::{Error, certificates};
use tempfile::TempDir;

/// For one answer, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(30);

/// What kind of server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// It answers only to those who send this.
    pub api_key: Option<&'static str>,
    /// TLS only, with an authority of its own. Then it takes no faults.
    pub tls: bool,
    /// Segments of ten kilobytes are indexed already, when [`Qdrant::optimize`] says so.
    pub indexed: bool,
}

/// A running server; what it holds lies in a folder that goes with it.
#[derive(Debug)]
pub struct Qdrant {
    options: Options,
    /// Stays the same over restarts.
    port: u16,
    child: Mutex<Option<Child>>,
    folder: TempDir,
}

/// What came so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Connections that were accepted, those of the test itself included.
    pub connections: u64,
    /// Requests, without those of the test itself.
    pub requests: u64,
}

impl Qdrant {
    /// Starts one, and waits until it listens.
    ///
    /// # Errors
    ///
    /// A program or the Python package is missing, or it does not come up.
    pub fn start(options: Options) -> Result<Self, Error> {
        let check = Command::new(python())
            .args(["-c", "import qdrant_edge"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !check.is_ok_and(|status| status.success()) {
            return Err(Error::Missing(".venv/ with qdrant-edge-py"));
        }
        let folder = tempfile::Builder::new().prefix("nearhop-qdrant-").tempdir()?;
        fs::create_dir(folder.path().join("data"))?;
        if options.tls {
            certificates(folder.path())?;
        }
        let (child, port) = spawn(folder.path(), options, 0)?;
        Ok(Self { options, port, child: Mutex::new(Some(child)), folder })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.options.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The authority's file, with TLS.
    #[must_use]
    pub fn authority(&self) -> Option<PathBuf> {
        self.options.tls.then(|| self.folder.path().join("ca.pem"))
    }

    /// From now on this goes wrong; `{}` ends it. `server.py` lists what can.
    ///
    /// # Errors
    ///
    /// It is no fault that the server knows, or the server does not run.
    pub fn fault(&self, fault: &str) -> Result<(), Error> {
        self.ask("POST", "/_fault", fault).map(|_| ())
    }

    /// What came so far.
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn seen(&self) -> Result<Seen, Error> {
        let said = self.ask("GET", "/_seen", "")?;
        Ok(Seen {
            connections: number(&said, "connections")?,
            requests: number(&said, "requests")?,
        })
    }

    /// Has codes and graphs made, and says of how many vectors.
    ///
    /// # Errors
    ///
    /// The server does not run.
    pub fn optimize(&self) -> Result<u64, Error> {
        number(&self.ask("POST", "/_optimize", "")?, "indexed")
    }

    /// Kills it, as a crash does.
    ///
    /// # Errors
    ///
    /// The machine's.
    pub fn kill(&self) -> Result<(), Error> {
        if let Some(mut child) = self.locked().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again after [`kill`](Self::kill), with what it held.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub fn restart(&self) -> Result<(), Error> {
        let (child, _) = spawn(self.folder.path(), self.options, self.port)?;
        *self.locked() = Some(child);
        Ok(())
    }

    /// Every byte that lies in its folder.
    ///
    /// # Errors
    ///
    /// The machine's.
    pub fn dump(&self) -> Result<Vec<u8>, Error> {
        let (mut all, mut folders) = (vec![], vec![self.folder.path().join("data")]);
        while let Some(folder) = folders.pop() {
            for file in fs::read_dir(folder)? {
                let file = file?;
                if file.file_type()?.is_dir() {
                    folders.push(file.path());
                } else {
                    all.extend(fs::read(file.path())?);
                }
            }
        }
        Ok(all)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String, Error> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        if said.starts_with("HTTP/1.1 200") { Ok(said) } else { Err(Error::Said(said)) }
    }

    fn locked(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Qdrant {
    fn drop(&mut self) {
        // One that is gone already needs only to be waited for.
        let _ = self.kill();
    }
}

/// A number in a small answer, without a parser for all of JSON.
fn number(said: &str, name: &str) -> Result<u64, Error> {
    let digits = said.split_once(&format!("\"{name}\": ")).map_or("", |(_, rest)| {
        rest.split(|char: char| !char.is_ascii_digit()).next().unwrap_or("")
    });
    digits.parse().map_err(|_none| Error::Said(said.to_owned()))
}

/// The repository's.
fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python")
}

fn spawn(folder: &Path, options: Options, port: u16) -> Result<(Child, u16), Error> {
    let mut command = Command::new(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("server.py"));
    command.arg(folder.join("data")).arg("--port").arg(port.to_string());
    if let Some(key) = options.api_key {
        command.args(["--api-key", key]);
    }
    if options.indexed {
        command.args(["--index-above", "10"]);
    }
    if options.tls {
        command.arg("--tls").arg(folder.join("leaf.pem")).arg(folder.join("leaf-key.pem"));
    }
    // It ends with its standard input, which ends with this process.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(said) = child.stdout.take() {
        BufReader::new(said).read_line(&mut line)?;
    }
    match line.trim().parse() {
        Ok(port) => Ok((child, port)),
        Err(_) => {
            child.kill()?;
            child.wait()?;
            Err(Error::Said("server.py did not come up; see its standard error".to_owned()))
        }
    }
}
