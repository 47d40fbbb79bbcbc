//! A name server for tests: on loopback, by UDP and TCP, with a script.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, SOA, SRV},
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
    time::timeout,
};

use crate::resolver::{Places, Resolver};

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Udp,
    Tcp,
}

/// The datagrams that answer a question, none for silence.
type Script = Box<dyn FnMut(&Message, Via) -> Vec<Vec<u8>> + Send>;

/// Stops when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<String>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    pub(crate) async fn start(
        script: impl FnMut(&Message, Via) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        // A port is free for UDP and may be somebody's by TCP.
        for _ in 0..100 {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                return Self::on(udp, tcp, Box::new(script));
            }
        }
        panic!("no port is free for both");
    }

    /// On another address of loopback, with the port of `other`.
    pub(crate) async fn beside(
        other: &Self,
        ip: &str,
        script: impl FnMut(&Message, Via) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let address = SocketAddr::new(ip.parse().unwrap(), other.address.port());
        let udp = UdpSocket::bind(address).await.unwrap();
        Self::on(udp, TcpListener::bind(address).await.unwrap(), Box::new(script))
    }

    fn on(udp: UdpSocket, tcp: TcpListener, script: Script) -> Self {
        let address = udp.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer = {
            let (script, asked) = (script.clone(), asked.clone());
            move |bytes: &[u8], via: Via| {
                let message = Message::from_vec(bytes).unwrap();
                let query = &message.queries[0];
                asked.lock().unwrap().push(format!("{} {}", query.name(), query.query_type()));
                (script.lock().unwrap())(&message, via)
            }
        };
        let by_udp = answer.clone();
        let tasks = [
            tokio::spawn(async move {
                let mut buffer = [0; 512];
                loop {
                    let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                    for datagram in by_udp(&buffer[..length], Via::Udp) {
                        udp.send_to(&datagram, from).await.unwrap();
                    }
                }
            }),
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = tcp.accept().await.unwrap();
                    let length = stream.read_u16().await.unwrap();
                    let mut question = vec![0; length.into()];
                    stream.read_exact(&mut question).await.unwrap();
                    for message in answer(&question, Via::Tcp) {
                        stream.write_u16(message.len().try_into().unwrap()).await.unwrap();
                        stream.write_all(&message).await.unwrap();
                    }
                }
            }),
        ];
        Self { address, script, asked, tasks }
    }

    /// From now on.
    pub(crate) fn says(&self, script: impl FnMut(&Message, Via) -> Vec<Vec<u8>> + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// `NAME KIND` of each question since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// Asks this one for names as they are written.
    pub(crate) fn resolver(&self) -> Resolver {
        Resolver::with(Some(self.address), places(Path::new("/nowhere"), self.address.port()))
    }
}

/// What a machine says of itself: `resolv.conf` and `hosts`.
pub(crate) struct Machine(TempDir);

impl Machine {
    pub(crate) fn new(resolv: &str, hosts: &str) -> Self {
        let machine = Self(TempDir::new().unwrap());
        machine.write("resolv.conf", resolv);
        machine.write("hosts", hosts);
        machine
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let next = self.0.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.0.path().join(name)).unwrap();
    }

    pub(crate) fn resolver(&self, port: u16) -> Resolver {
        Resolver::with(None, places(self.0.path(), port))
    }
}

fn places(folder: &Path, port: u16) -> Places {
    Places { resolv: folder.join("resolv.conf"), hosts: folder.join("hosts"), port }
}

/// Answers from a zone, `NAME TTL KIND DATA` each line; a name that is in none is NXDOMAIN, for a
/// second. What does not fit is truncated.
pub(crate) fn zone(text: &str) -> impl Fn(&Message, Via) -> Vec<Vec<u8>> + Send + 'static {
    let records: Vec<Record> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).map(record).collect();
    move |question, via| vec![fit(&look_up(&records, question), via)]
}

/// A line for each address, of one name.
pub(crate) fn many(name: &str, addresses: u16) -> String {
    (0..addresses).fold(String::new(), |mut text, at| {
        let [high, low] = at.to_be_bytes();
        writeln!(text, "{name} 1 A 10.9.{high}.{low}").unwrap();
        text
    })
}

/// Says only a code.
pub(crate) fn refuses(
    code: ResponseCode,
) -> impl Fn(&Message, Via) -> Vec<Vec<u8>> + Send + 'static {
    move |question, _| {
        let mut answer = reply(question);
        answer.metadata.response_code = code;
        vec![answer.to_vec().unwrap()]
    }
}

pub(crate) fn silent(_: &Message, _: Via) -> Vec<Vec<u8>> {
    Vec::new()
}

pub(crate) fn reply(question: &Message) -> Message {
    let mut answer = Message::response(question.id, OpCode::Query);
    answer.add_queries(question.queries.iter().cloned());
    answer
}

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(crate) fn record(line: &str) -> Record {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [owner, ttl, kind, data @ ..] = words.as_slice() else { panic!("{line}") };
    let data = match (*kind, data) {
        ("A", [ip]) => RData::A(ip.parse().unwrap()),
        ("AAAA", [ip]) => RData::AAAA(ip.parse().unwrap()),
        ("CNAME", [to]) => RData::CNAME(CNAME(name(to))),
        ("SRV", [priority, weight, port, target]) => RData::SRV(SRV::new(
            priority.parse().unwrap(),
            weight.parse().unwrap(),
            port.parse().unwrap(),
            name(target),
        )),
        _ => panic!("{line}"),
    };
    Record::from_rdata(name(owner), ttl.parse().unwrap(), data)
}

fn look_up(records: &[Record], question: &Message) -> Message {
    let query = &question.queries[0];
    let mut answer = reply(question);
    let mut at = query.name().clone();
    loop {
        let here: Vec<&Record> = records.iter().filter(|record| record.name == at).collect();
        let fit = |kind| here.iter().filter(move |record| record.record_type() == kind).copied();
        let alias = fit(RecordType::CNAME).next();
        answer.add_answers(fit(query.query_type()).cloned());
        match alias.map(|record| (&record.data, record)) {
            Some((RData::CNAME(to), record)) if answer.answers.len() < 20 => {
                answer.add_answer(record.clone());
                at = to.0.clone();
            }
            _ => {
                if here.is_empty() {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                if alias.is_none() && fit(query.query_type()).next().is_none() {
                    let soa = SOA::new(name("ns."), name("root."), 1, 1, 1, 1, 1);
                    answer.add_authority(Record::from_rdata(Name::root(), 1, RData::SOA(soa)));
                }
                return answer;
            }
        }
    }
}

fn fit(answer: &Message, via: Via) -> Vec<u8> {
    let bytes = answer.to_vec().unwrap();
    match via {
        Via::Udp if bytes.len() > 512 => answer.truncate().to_vec().unwrap(),
        _ => bytes,
    }
}

/// Waits for what must come, and not for ever.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("it comes")
}
