use super::*;
use tokio::{net::UnixListener, sync::mpsc};

/// A world that says of everything that it is done, but refuses to undo.
fn world() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (send, mut requests) = mpsc::channel::<Request>(1);
    tokio::spawn(serve(listener, send));
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let answer = match request.action {
                Action::Undo {} => Answer::Error { error: "no way back".to_owned() },
                action => Answer::Done { done: format!("{action:?}"), at: 1.5 },
            };
            let _ = request.answer.send(answer);
        }
    });
    (folder, path)
}

#[tokio::test]
async fn what_was_done_is_told_and_what_was_refused_is_an_error() {
    let (_folder, path) = world();
    let done = ask(&path, &Action::KillLlmNodes { count: 2, region: None }).await.unwrap();
    assert!(done.contains("count: 2"), "{done}");
    let error = ask(&path, &Action::Undo {}).await.unwrap_err();
    assert!(matches!(&error, ControlError::Refused(said) if said == "no way back"), "{error}");
    let error = ask(&path.with_extension("gone"), &Action::Undo {}).await.unwrap_err();
    assert!(error.to_string().contains("nearhop load emulate"), "{error}");
}

#[tokio::test]
async fn a_connection_takes_many_lines_and_ends_with_one_that_is_too_long() {
    let (_folder, path) = world();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let long = format!("{{\"action\": \"undo\", \"x\": \"{}\"}}\n", "x".repeat(5000));
    let lines = format!("{{\"action\": \"kill_edge\", \"region\": \"a\"}}\nnonsense\n{long}");
    stream.write_all(lines.as_bytes()).await.unwrap();
    let mut said = String::new();
    let read = stream.read_to_string(&mut said);
    // What it did not read resets the connection.
    let _ = timeout(Duration::from_secs(30), read).await.unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("\"done\":\"KillEdge") && lines[0].contains("\"at\":1.5"), "{said}");
    assert!(lines[1].contains("\"error\":") && lines[1].contains("fill_disk"), "{said}");
    assert!(lines[2].contains("longer than 4096 bytes"), "{said}");
    assert_eq!(lines.len(), 3);
}
