use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// A folder `conf` with a file `a`, holding `old`.
fn folder_with_a() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("conf")).unwrap();
    let file = root.path().join("conf/a");
    fs::write(&file, "old").unwrap();
    (root, file)
}

async fn change(watch: &mut Watch) {
    timeout(LIMIT, watch.changed())
        .await
        .expect("no change was reported");
}

/// Waits for reports until the file holds this text.
async fn until(watch: &mut Watch, file: &Path, text: &str) {
    let all = async {
        while fs::read_to_string(file).ok().as_deref() != Some(text) {
            watch.changed().await;
        }
    };
    timeout(LIMIT, all).await.expect("the text was never seen");
}

async fn silence(watch: &mut Watch) {
    let quiet = Duration::from_millis(2600);
    assert!(
        timeout(quiet, watch.changed()).await.is_err(),
        "a change was reported"
    );
}

#[tokio::test]
async fn each_file_renamed_over_is_a_change() {
    let (root, file) = folder_with_a();
    let mut watch = Watch::new(std::slice::from_ref(&file));
    assert_eq!(watch.problem(), None);
    for text in ["one", "two", "three"] {
        fs::write(root.path().join("new"), text).unwrap();
        fs::rename(root.path().join("new"), &file).unwrap();
        let start = Instant::now();
        change(&mut watch).await;
        assert!(start.elapsed() < LOOK, "found by looking only");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    silence(&mut watch).await;
}

#[tokio::test]
async fn a_slow_writer_is_reported_when_it_is_done() {
    let (_root, file) = folder_with_a();
    let mut watch = Watch::new(std::slice::from_ref(&file));
    let path = file.clone();
    let writer = std::thread::spawn(move || {
        let mut file = File::create(path).unwrap();
        for piece in ["1024:30000", ":10:true\n", "1025:30", "001:10:true\n"] {
            file.write_all(piece.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(150));
        }
    });
    change(&mut watch).await;
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "1024:30000:10:true\n1025:30001:10:true\n"
    );
    writer.join().unwrap();
}

#[tokio::test]
async fn a_writer_that_never_closes_is_reported_after_a_pause() {
    let (_root, file) = folder_with_a();
    let mut watch = Watch::new(std::slice::from_ref(&file));
    let mut writer = File::options().append(true).open(&file).unwrap();
    writer.write_all(b"er").unwrap();
    until(&mut watch, &file, "older").await;
    change(&mut watch).await;
    drop(writer);
}

#[tokio::test]
async fn a_file_removed_and_written_anew_is_one_change() {
    let (_root, file) = folder_with_a();
    let mut watch = Watch::new(std::slice::from_ref(&file));
    let path = file.clone();
    let writer = std::thread::spawn(move || {
        fs::remove_file(&path).unwrap();
        std::thread::sleep(Duration::from_millis(250));
        fs::write(&path, "new").unwrap();
    });
    change(&mut watch).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    writer.join().unwrap();
}

#[tokio::test]
async fn a_swapped_config_map_is_a_change() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let swap = |version: &str, text: &str| {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a"), text).unwrap();
        symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    swap("..1", "one");
    symlink("..data/a", at("a")).unwrap();
    let mut watch = Watch::new(&[at("a")]);
    for (old, version, text) in [("..1", "..2", "two"), ("..2", "..3", "three")] {
        swap(version, text);
        fs::remove_dir_all(at(old)).unwrap();
        change(&mut watch).await;
        assert_eq!(fs::read_to_string(at("a")).unwrap(), text);
    }
    silence(&mut watch).await;
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_watched_again() {
    let (root, file) = folder_with_a();
    let conf = root.path().join("conf");
    let mut watch = Watch::new(std::slice::from_ref(&file));
    fs::remove_dir_all(&conf).unwrap();
    change(&mut watch).await;
    fs::create_dir(&conf).unwrap();
    fs::write(&file, "again").unwrap();
    until(&mut watch, &file, "again").await;

    fs::create_dir(root.path().join("other")).unwrap();
    fs::write(root.path().join("other/a"), "other").unwrap();
    fs::rename(&conf, root.path().join("gone")).unwrap();
    fs::rename(root.path().join("other"), &conf).unwrap();
    until(&mut watch, &file, "other").await;

    // Events come from the new folder, not only looks.
    let watched = async {
        let mut quick = false;
        while !quick {
            fs::write(root.path().join("new"), "quick").unwrap();
            fs::rename(root.path().join("new"), &file).unwrap();
            let start = Instant::now();
            watch.changed().await;
            quick = start.elapsed() < Duration::from_millis(500);
        }
    };
    timeout(LIMIT, watched)
        .await
        .expect("the new folder gives no events");
}

#[tokio::test]
async fn files_may_move_to_another_folder() {
    let (root, file) = folder_with_a();
    let mut watch = Watch::new(std::slice::from_ref(&file));
    fs::create_dir(root.path().join("there")).unwrap();
    let there = root.path().join("there/b");
    watch.set(&[file.clone(), there.clone()]);
    // What was read before it was watched may have changed.
    change(&mut watch).await;
    fs::write(&there, "new").unwrap();
    until(&mut watch, &there, "new").await;
    watch.set(std::slice::from_ref(&there));
    change(&mut watch).await;
    fs::write(&file, "not watched any more").unwrap();
    silence(&mut watch).await;
    fs::write(&there, "newer").unwrap();
    change(&mut watch).await;
}

#[tokio::test]
async fn neighbours_and_readers_change_nothing() {
    let (root, file) = folder_with_a();
    let mut watch = Watch::new(std::slice::from_ref(&file));
    let conf = root.path().join("conf");
    let noise = std::thread::spawn(move || {
        for round in 0..50 {
            fs::write(conf.join("log"), round.to_string()).unwrap();
            fs::read(conf.join("a")).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    silence(&mut watch).await;
    noise.join().unwrap();
}

#[tokio::test]
async fn a_change_survives_a_dropped_wait() {
    let (_root, file) = folder_with_a();
    let mut watch = Watch::new(std::slice::from_ref(&file));
    fs::write(&file, "new").unwrap();
    for _ in 0..20 {
        if timeout(Duration::from_millis(5), watch.changed())
            .await
            .is_ok()
        {
            return;
        }
    }
    change(&mut watch).await;
}

#[tokio::test]
async fn without_inotify_changes_are_still_found() {
    let (root, file) = folder_with_a();
    let mut watch = Watch::new(std::slice::from_ref(&file));
    watch.watcher = Err(notify::Error::generic("no more instances"));
    assert!(watch.problem().is_some());
    fs::write(root.path().join("new"), "new").unwrap();
    fs::rename(root.path().join("new"), &file).unwrap();
    change(&mut watch).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
}

#[tokio::test]
async fn what_a_symlink_into_another_folder_leads_to_is_looked_at() {
    let (root, file) = folder_with_a();
    let link = root.path().join("link");
    symlink(&file, &link).unwrap();
    let mut watch = Watch::new(std::slice::from_ref(&link));
    fs::write(&file, "new").unwrap();
    change(&mut watch).await;
}
