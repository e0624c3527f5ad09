//! What every door that speaks HTTP/1.1 does with a caller who takes its time, or says too much: on a connection that was used before,
//! where its library sees to nothing.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use mesh_harness::{Mesh, PATIENCE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// How long a head may take.
const HEAD: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A door, by a path that anybody may ask for.
#[derive(Clone, Copy)]
struct Door(SocketAddr, &'static str);

impl Door {
    fn head(self, fields: &str) -> String {
        format!("GET {} HTTP/1.1\r\nhost: mesh\r\n{fields}", self.1)
    }

    /// A connection that was used.
    async fn used(self) -> anyhow::Result<TcpStream> {
        let mut socket = TcpStream::connect(self.0).await?;
        socket.write_all(self.head("\r\n").as_bytes()).await?;
        let answer = answer(&mut socket).await?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{}: {answer}", self.1);
        Ok(socket)
    }

    /// The answer to a head on a connection that was used, and whether the connection ends behind it.
    async fn asked(self, head: &str) -> anyhow::Result<(String, bool)> {
        let mut socket = self.used().await?;
        socket.write_all(head.as_bytes()).await?;
        let answer = answer(&mut socket).await?;
        // An unread rest may be answered with a reset, which is an end as well.
        let ends = timeout(Duration::from_secs(2), socket.read_u8()).await;
        Ok((answer, ends.is_ok_and(|byte| byte.is_err())))
    }
}

fn doors(mesh: &Mesh) -> [Door; 3] {
    let addresses = mesh.addresses();
    [
        Door(addresses.http, "/v2/health/live"),
        Door(addresses.metrics, "/health/live"),
        Door(addresses.admin, "/admin/v1/sign-in"),
    ]
}

/// One answer whose length is said.
async fn answer(socket: &mut TcpStream) -> anyhow::Result<String> {
    let mut heard = Vec::new();
    let read = async {
        loop {
            let text = String::from_utf8_lossy(&heard).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let lines = head.lines().filter_map(|line| line.split_once(": "));
                let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
                let length: usize = lengths.next().context("no length")?.1.parse()?;
                if body.len() >= length {
                    return anyhow::Ok(text);
                }
            }
            ensure!(socket.read_buf(&mut heard).await? > 0, "ended after '{text}'");
        }
    };
    timeout(PATIENCE, read).await.context("no answer")?
}

#[tokio::test]
async fn a_second_head_is_whole_in_five_seconds_at_every_door() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let slow = doors(&mesh).map(|door| async move {
        let (begun, mut socket) = (Instant::now(), door.used().await?);
        let (mut read, mut write) = socket.split();
        let drip = async {
            let head = door.head("x: ");
            for byte in head.bytes().chain(std::iter::repeat(b'x')) {
                if write.write_all(&[byte]).await.is_err() {
                    break;
                }
                sleep(HEAD / 50).await;
            }
        };
        let mut heard = String::new();
        let hear = read.read_to_string(&mut heard);
        tokio::select! {
            () = drip => {}
            _ = hear => {}
            () = sleep(4 * HEAD) => {}
        }
        ensure!(heard.starts_with("HTTP/1.1 408 "), "{}: '{heard}'", door.1);
        ensure!(begun.elapsed() >= HEAD, "{}: after {:?}", door.1, begun.elapsed());
        Ok(())
    });
    for ended in futures::future::join_all(slow).await {
        ended?;
    }
    let metrics = reqwest::get(format!("http://{}/metrics", mesh.addresses().metrics)).await?;
    let metrics = metrics.text().await?;
    ensure!(
        metrics.contains("mesh_refused_total{reason=\"http1_slow_head\"} 3"),
        "{metrics}"
    );
    Ok(())
}

#[tokio::test]
async fn a_second_head_has_sixteen_kibibytes_and_no_more_at_every_door() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    for door in doors(&mesh) {
        let room = MAX_HEAD_BYTES - door.head("x: \r\n\r\n").len();
        for (bytes, status) in [(room, 200), (room + 1, 431)] {
            let head = door.head(&format!("x: {}\r\n\r\n", "x".repeat(bytes)));
            let (answer, ended) = door.asked(&head).await?;
            ensure!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")) && ended == (status == 431),
                "{} {bytes}: {ended} {answer}",
                door.1
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_sign_in_whose_body_does_not_come_holds_its_place_no_longer_than_a_head() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (mut socket, begun) = (TcpStream::connect(mesh.addresses().admin).await?, Instant::now());
    let head = "POST /admin/v1/session HTTP/1.1\r\nhost: mesh\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{";
    socket.write_all(head.as_bytes()).await?;
    let answer = answer(&mut socket).await?;
    ensure!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    ensure!(begun.elapsed() >= HEAD, "after {:?}", begun.elapsed());
    let ends = timeout(PATIENCE, socket.read_u8()).await;
    ensure!(ends.is_ok_and(|byte| byte.is_err()), "the connection goes on");
    Ok(())
}
