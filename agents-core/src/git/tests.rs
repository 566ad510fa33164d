//! Addresses, refs and folders in every spelling that a tool below git may read differently.

use proptest::prelude::*;

use super::*;

#[test]
fn addresses_that_run_programs_or_carry_credentials_are_refused() {
    for url in [
        "",
        "ext::sh -c id",
        "ext::sh",
        "fd::3",
        "/srv/repo",
        "../repo",
        "--upload-pack=x",
        "-c",
        "C:\\repo",
        "https://u:secret@host/x",
        "ssh://-oProxyCommand=x/y",
        "ssh://u@-oProxyCommand/y",
        "ssh://-u@host/y",
        "u@-oProxyCommand=x:y",
        "file://host/x",
        "file://",
        "https:///x",
        "ftp://host/x",
        "https://host/a b",
        "https://host/a\nb",
        "http://169.254.169.254/latest",
        "http://[fe80::1]/x",
        "http://[::ffff:169.254.1.1]/x",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0XA9.0xfe.0xa9.0xfe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://169.254.169.254./",
        "http://a.b.1/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[fd00:ec2::254]/latest",
        "http://[FD00:0EC2:0::254]:80/latest",
        "u@2852039166:x",
        "https://metadata.google.internal/x",
        "u@host::x",
        "u@host:-x",
        ".",
        "./repo",
        "HTTPS://host/x",
        // Credentials of every shape.
        "https://user@host/x",
        "http://ghp_0123456789@host/x",
        "https://@host/x",
        "https://:@host/x",
        "https://u:p@w@host/x",
        "https://u%3Ap@host/x",
        "https://good.example@169.254.169.254/x",
        "https://169.254.169.254@good.example/x",
        "https://user@host?/x",
        "https://host\\@169.254.169.254/x",
        "git://u@host/x",
        "ssh://u:p@host/x",
        "ssh://@host/x",
        "u:p@host:x",
        // What ends an authority for curl ends it here.
        "http://169.254.169.254?x/y",
        "http://169.254.169.254#x/y",
        "http://2852039166?@host/y",
    ] {
        assert!(check_url(url).is_err(), "{url}");
    }
}

#[test]
fn metadata_is_refused_in_every_spelling() {
    for url in [
        // Names that are decoded or mapped before they are looked up.
        "http://%31%36%39.254.169.254/",
        "http://１６９.254.169.254/",
        "http://169。254。169。254/",
        "http://metadata.google.internal./x",
        "http://METADATA.google.internal:80/x",
        "http://metadata.goog/x",
        "http://metadata/x",
        // Addresses in other spellings.
        "http://0xa9.0xfe.0xa9.0xfe./",
        "http://0x7f.1/",
        "http://127.1/",
        "http://169.254.0xa9fe/",
        "http://025177524776/",
        "http://169.254.169.254:80/",
        "http://169.254.169.254:/",
        "http://169.254.170.2/v2/credentials",
        "http://100.100.100.200/latest",
        "http://192.0.0.192/x",
        "http://168.63.129.16/x",
        "http://[::ffff:169.254.169.254]/",
        "http://[::FFFF:a9fe:a9fe]/",
        "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
        "http://[::169.254.169.254]/",
        "http://[64:ff9b::169.254.169.254]/",
        "http://[64:ff9b:1::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://[::ffff:0:a9fe:a9fe]/",
        "http://[::ffff:100.100.100.200]/",
        "http://[febf::1]/",
        "http://[fe80::1/",
        "http://[fe80::1]x/",
        "http://[v1.x]/",
        "http://[169.254.169.254]/",
        "http://host:99999/x",
        "http://host:+80/x",
        "http://host:80:80/x",
        "git@[169.254.169.254:22]:x",
        "git@[::ffff:169.254.169.254]:x",
        "git@[[::1]:22]:x",
        "git@169.254.169.254:x",
        &format!("https://{}/x", "a".repeat(254)),
    ] {
        assert!(check_url(url).is_err(), "{url}");
    }
}

#[test]
fn other_addresses_are_reported_without_their_user() {
    for (url, public) in [
        ("https://example.com/a.git", "https://example.com/a.git"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("https://example.com/a@b?c=d:e@f", "https://example.com/a@b?c=d:e@f"),
        ("https://example.com", "https://example.com"),
        ("https://example.com:/a", "https://example.com:/a"),
        ("https://example.com./a", "https://example.com./a"),
        ("https://xn--bcher-kva.example/a", "https://xn--bcher-kva.example/a"),
        ("https://my_host/a", "https://my_host/a"),
        ("https://metadata.example.com/a", "https://metadata.example.com/a"),
        ("http://[::1]:3000/a", "http://[::1]:3000/a"),
        ("http://[::ffff:10.0.0.1]/a", "http://[::ffff:10.0.0.1]/a"),
        ("ssh://git@example.com:22/a", "ssh://example.com:22/a"),
        ("ssh://example.com/~me/a", "ssh://example.com/~me/a"),
        ("ssh://git@[2001:db8::1]:22/a", "ssh://[2001:db8::1]:22/a"),
        ("git@[example.com:22]:a", "[example.com:22]:a"),
        ("git@[2001:db8::1]:a", "[2001:db8::1]:a"),
        ("git@example.com:a@b:c", "example.com:a@b:c"),
        ("ssh://git@example.com/a", "ssh://example.com/a"),
        ("git@example.com:org/a.git", "example.com:org/a.git"),
        ("file:///srv/a", "file:///srv/a"),
        ("git://10.0.0.1/a", "git://10.0.0.1/a"),
        ("http://10.0.0.1:8080/a", "http://10.0.0.1:8080/a"),
        ("http://[fd00:ec2::253]/a", "http://[fd00:ec2::253]/a"),
        ("https://0xcafe.example/a", "https://0xcafe.example/a"),
        ("https://1.example.2nd/a", "https://1.example.2nd/a"),
    ] {
        assert_eq!(check_url(url).as_deref(), Ok(public));
    }
}

#[test]
fn refs_that_are_options_or_expressions_are_refused() {
    for reference in [
        "",
        "--upload-pack=x",
        "-c",
        "a..b",
        "a@{1}",
        "@",
        "+a",
        "a:b",
        "a b",
        "a^",
        "a~1",
        "main~2",
        "@{u}",
        "HEAD@{1}",
        "+refs/heads/a:refs/heads/b",
        "refs/heads/*",
        "a?",
        "a*",
        "a[",
        "a\\b",
        "a\x07",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.lock",
        "a.",
        &"a".repeat(1024),
    ] {
        assert!(check_reference(reference).is_err(), "{reference}");
    }
    for reference in ["HEAD", "main", "feature/x-1", "v1.0", "refs/pull/1/head", "größe", "0a1b2c3"] {
        assert_eq!(check_reference(reference), Ok(()));
    }
}

fn authority() -> impl Strategy<Value = String> {
    "(u@|u:p@|@|)(\\[|)(169\\.254\\.169\\.254|0xa9fea9fe|::ffff:a9fe:a9fe|fe80::1|host|a\\.b|1|%31|。)(\\]|)(\\.|)(:80|:|)"
}

proptest! {
    #[test]
    fn what_is_accepted_names_no_credential_and_no_metadata(authority in authority(), end in "(/x|\\?x|#x|)") {
        for scheme in ["http", "https"] {
            if let Ok(public) = check_url(&format!("{scheme}://{authority}{end}")) {
                prop_assert!(!public.contains('@'), "{}", public);
                prop_assert!(["169.254", "a9fe", "fe80", "%"].iter().all(|part| !public.contains(part)), "{}", public);
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(url in "\\PC{0,40}", authority in "[\\[\\]@:/.?#%a0-]{0,12}") {
        let _ = check_url(&url);
        let _ = check_url(&format!("http://{authority}"));
        let _ = check_url(&format!("u@{authority}"));
        let _ = check_reference(&url);
        let _ = check_path(&url);
    }

    #[test]
    fn a_folder_stays_inside(path in "(/|\\.|\\.\\.|a|b){0,10}") {
        if let Ok(parts) = check_path(&path) {
            prop_assert!(parts.iter().all(|part| part != ".." && part != "." && !part.is_empty()));
        }
    }
}

#[test]
fn every_problem_is_named_and_no_value_is_repeated() {
    let git = |url: &str, reference: &str, path: &str| GitCoordinates {
        url: url.to_owned(),
        reference: Some(reference.to_owned()),
        path: Some(path.to_owned()),
    };
    let all = problems(&git("https://ghp_0123456789@host/x", "main~2", "../x"));
    assert_eq!(all.iter().map(|problem| problem.field).collect::<Vec<_>>(), ["url", "ref", "path"]);
    for problem in &all {
        let text = problem.to_string();
        assert!(!text.contains("ghp_") && text.starts_with(&format!("`git.{}`: ", problem.field)), "{text}");
    }
    assert!(all[0].problem.contains("secretEnv"), "{}", all[0].problem);
    assert_eq!(problems(&git("https://host/x", "HEAD", "a/b")), []);
}
