//! Apps behind the proxy: servers that we did not write.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
};

use crate::process::{self, Process, TempDir};
use socket2::{Domain, Socket, Type};

/// nginx with one server block.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    pub(crate) directory: TempDir,
    _process: Process,
    _reserved: Socket,
}

/// nghttpd, which speaks HTTP/2 by prior knowledge and nothing else.
pub(crate) struct Nghttpd {
    pub(crate) address: SocketAddr,
    pub(crate) directory: TempDir,
    _process: Process,
}

/// A port that stays ours while it is held: only who also asks for a shared port can listen on
/// it. For servers that can't say which port the kernel gave them.
fn reserve() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Makes `directory`/`name` a key and certificate (`name.key`, `name.crt`) for `shop`.
pub(crate) async fn certificate(directory: &Path) -> (String, String) {
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (file("app.key"), file("app.crt"));
    let subject = ["-subj", "/CN=shop", "-addext", "subjectAltName=DNS:shop"];
    let mut arguments = vec!["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"];
    arguments.extend(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    arguments.extend(["-keyout", &key, "-out", &certificate]);
    arguments.extend(subject);
    process::run("openssl", &arguments).await;
    (key, certificate)
}

// === impl Nginx ===

impl Nginx {
    /// Plain HTTP/1 with `locations` inside its server block.
    pub(crate) async fn start(locations: &str) -> Self {
        Self::in_directory(TempDir::new(), "", locations).await
    }

    /// `listen` is what follows the address in the directive of that name. Files are served from
    /// `directory`, which is also `$document_root`.
    pub(crate) async fn in_directory(directory: TempDir, listen: &str, locations: &str) -> Self {
        let (reserved, address) = reserve();
        let path = directory.path().display();
        // One process, so that ending it ends all of it.
        let configuration = format!(
            "daemon off; master_process off; pid {path}/nginx.pid; error_log stderr emerg;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
               access_log off; default_type text/plain; keepalive_requests 1000000;\n\
               client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
               fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi;\n\
               scgi_temp_path {path}/scgi;\n\
               server {{\n\
                 listen {address} reuseport {listen}; root {path};\n\
                 {locations}\n\
               }}\n\
             }}\n"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = process::command("nginx");
        command
            .args(["-e", "stderr", "-c"])
            .arg(&file)
            .arg("-p")
            .arg(directory.path());
        let mut process = Process::spawn(&mut command);
        process.listens(1).await;
        Self {
            address,
            directory,
            _process: process,
            _reserved: reserved,
        }
    }
}

// === impl Nghttpd ===

impl Nghttpd {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let directory = TempDir::new();
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = process::command("nghttpd");
        command
            .args(["--no-tls", "--verbose", "-a", "127.0.0.1", "-d"])
            .arg(directory.path())
            .args(arguments)
            .arg("0")
            .stdout(log);
        let mut process = Process::spawn(&mut command);
        let port = process.listens(1).await[0];
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            directory,
            _process: process,
        }
    }

    /// Serves `text` as `/name`.
    pub(crate) fn file(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// Header and trailer lines that it received, in their order.
    pub(crate) fn received(&self) -> Vec<String> {
        let log = fs::read(self.directory.path().join("log")).unwrap();
        String::from_utf8_lossy(&log)
            .lines()
            .filter_map(|line| line.split_once(" recv (stream_id="))
            .filter_map(|(_, rest)| Some(rest.split_once(") ")?.1.to_owned()))
            .collect()
    }
}
