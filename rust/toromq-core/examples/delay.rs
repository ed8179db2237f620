//! A TCP proxy that passes on what it gets some time later: `delay SERVER:PORT MICROSECONDS`, in either direction.
//!
//! It prints the port it listens on and ends with its standard input. Two threads for each direction, so that waiting
//! for one piece never holds up another: it delays, and does not narrow.
#![allow(clippy::print_stdout)]

use std::{
    env,
    error::Error,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(server), Some(delay)) = (arguments.next(), arguments.next()) else {
        return Err("usage: delay SERVER:PORT MICROSECONDS".into());
    };
    let delay = Duration::from_micros(delay.parse()?);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // One that can't be served sees its connection end.
            let _ = serve(client, &server, delay);
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn serve(client: TcpStream, server: &str, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    pass(client.try_clone()?, server.try_clone()?, delay);
    pass(server, client, delay);
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, pieces) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        while let Ok(size) = from.read(&mut buffer) {
            let due = Instant::now() + delay;
            if size == 0 || sender.send((due, buffer[..size].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, piece) in pieces {
            // Threads sleep to within some tens of microseconds, where a timer of Tokio has milliseconds.
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
