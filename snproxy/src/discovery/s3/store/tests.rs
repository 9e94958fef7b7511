use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;

const NAMES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

async fn put(store: &InMemory, path: &str, bytes: Vec<u8>) {
    let path = Path::parse(path).unwrap();
    store.put(&path, PutPayload::from(bytes)).await.unwrap();
}

fn source<'a>(store: &'a InMemory, prefix: &'a str) -> Source<'a, InMemory> {
    Source {
        store,
        bucket: "certs",
        prefix,
    }
}

#[tokio::test]
async fn a_change_of_one_object_brings_all_of_them() {
    let store = InMemory::new();
    let source = source(&store, "/a/b/");
    put(&store, "a/b/ca.pem", b"ca".to_vec()).await;
    put(&store, "a/b/key.pem", b"key".to_vec()).await;
    let Fetched::Changed { objects, etags } = source.fetch(&NAMES, None).await.unwrap() else {
        panic!("nothing was known");
    };
    assert_eq!(objects, [Some(b"ca".to_vec()), None, Some(b"key".to_vec())]);
    let again = source.fetch(&NAMES, Some(&etags)).await.unwrap();
    assert_eq!(again, Fetched::NotModified);

    put(&store, "a/b/cert.pem", b"cert".to_vec()).await;
    let Fetched::Changed { objects, etags } = source.fetch(&NAMES, Some(&etags)).await.unwrap()
    else {
        panic!("an object came");
    };
    assert!(objects.iter().all(Option::is_some));
    store
        .delete(&Path::parse("a/b/ca.pem").unwrap())
        .await
        .unwrap();
    let Fetched::Changed { objects, .. } = source.fetch(&NAMES, Some(&etags)).await.unwrap() else {
        panic!("an object went");
    };
    assert_eq!(objects[0], None);
}

#[tokio::test]
async fn the_bucket_itself_may_be_the_folder() {
    let store = InMemory::new();
    put(&store, "ca.pem", b"ca".to_vec()).await;
    let fetched = source(&store, "").fetch(&["ca.pem"], None).await.unwrap();
    assert!(matches!(fetched, Fetched::Changed { objects, .. } if objects[0].is_some()));
}

#[tokio::test]
async fn a_large_object_is_refused() {
    let store = InMemory::new();
    put(&store, "x/ca.pem", vec![b'-'; MAX_OBJECT]).await;
    assert!(source(&store, "x").fetch(&["ca.pem"], None).await.is_ok());
    put(&store, "x/ca.pem", vec![b'-'; MAX_OBJECT + 1]).await;
    let error = source(&store, "x")
        .fetch(&["ca.pem"], None)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "s3://certs/x/ca.pem: larger than 1048576 bytes"
    );
}

#[test]
fn what_cannot_be_in_a_request_is_refused_before_it_is_made() {
    let check = |bucket: &str, set: Option<(AmazonS3ConfigKey, &str)>| {
        let setting = |key: &AmazonS3ConfigKey| {
            set.as_ref()
                .filter(|(is, _)| is == key)
                .map(|(_, value)| (*value).to_owned())
        };
        check(bucket, setting).map_err(|error| error.to_string())
    };
    assert_eq!(check("certs", None), Ok(false));
    for (endpoint, expected) in [("http://[::1]:9000", true), ("https://s3.local/x", false)] {
        let set = Some((AmazonS3ConfigKey::Endpoint, endpoint));
        assert_eq!(check("certs", set), Ok(expected), "{endpoint}");
    }
    for (key, value) in [
        (AmazonS3ConfigKey::Endpoint, "garbage"),
        (AmazonS3ConfigKey::Endpoint, "ftp://s3.local"),
        (AmazonS3ConfigKey::S3Endpoint, "http://a b"),
        (AmazonS3ConfigKey::S3Endpoint, ""),
        (AmazonS3ConfigKey::Region, "eu west"),
        (AmazonS3ConfigKey::DefaultRegion, "eu/west"),
        (AmazonS3ConfigKey::AccessKeyId, "a\nb"),
        (AmazonS3ConfigKey::SecretAccessKey, "a b"),
        (AmazonS3ConfigKey::Token, "é"),
    ] {
        let shown = format!("{key:?} {value:?}");
        assert!(check("certs", Some((key, value))).is_err(), "{shown}");
    }
    for bucket in ["", "a b", "a/b", &"a".repeat(64)] {
        assert!(check(bucket, None).is_err(), "{bucket:?}");
    }
}

#[test]
fn an_answer_in_xml_is_told_in_a_line() {
    let answer = "status 403: <?xml?>\n<Error><Code>AccessDenied</Code>\n<Message>Access\n  Denied</Message></Error>";
    assert_eq!(
        said(&std::io::Error::other(answer)),
        "AccessDenied: Access Denied"
    );
    assert_eq!(
        said(&std::io::Error::other("é ".repeat(1000)))
            .chars()
            .count(),
        MAX_SHOWN + 1
    );
}
