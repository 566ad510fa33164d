//! The controller's pages through the real binary, without a cluster that answers.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A controller that is ended with the test.
struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer).filter(|answer| !answer.is_empty())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn metrics_name_no_namespace_to_whoever_asks() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let server = format!("http://127.0.0.1:{}", free_port());
    fs::write(
        &config,
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
             users: [{{name: u, user: {{token: s3cret-token}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        ),
    )
    .unwrap();
    let port = free_port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_agents"));
    command
        .args(["controller", "--namespace=tenant-acme,tenant-initech", "--lease-name=agents", "--runner-image=r"])
        .arg(format!("--health-address=127.0.0.1:{port}"))
        .env("KUBECONFIG", &config)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _controller = Controller(command.spawn().unwrap());
    let begin = Instant::now();
    let page = loop {
        if let Some(page) = get(port, "/metrics") {
            break page;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "no page");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    for line in [
        "agents_ready 0",
        "agents_leader{runs=\"1\"} 0",
        "agents_leader{runs=\"2\"} 0",
        "agents_kept_bytes{runs=\"2\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
    for name in ["tenant", "acme", "initech", "s3cret", "127.0.0.1"] {
        assert!(!page.contains(name), "{name} in {page}");
    }
    let ready = get(port, "/readyz").unwrap();
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("tenant-acme: "), "{ready}");
    assert!(!ready.contains("s3cret"), "{ready}");
}
