//! Tests of the configuration: files, flags over files, and the documentation that is made from the keys.

use super::*;

fn check(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text).and_then(Config::checked)
}

#[test]
fn the_printed_file_says_what_holds_without_one() {
    assert_eq!(check(&default_file()), Ok(Config::default()));
    assert_eq!(check(""), Ok(Config::default()));
}

#[test]
fn every_key_is_documented_and_none_else() {
    fn collect(prefix: &str, table: &toml::Table, names: &mut Vec<String>) {
        for (name, value) in table {
            match value {
                toml::Value::Table(table) => collect(&format!("{prefix}{name}."), table, names),
                _ => names.push(format!("{prefix}{name}")),
            }
        }
    }
    let mut have = Vec::new();
    collect("", &toml::Table::try_from(Config::default()).expect("a table"), &mut have);
    let mut want = keys::names();
    want.push("registry.hosts".to_owned());
    have.sort();
    want.sort();
    assert_eq!(have, want);
    let host = toml::Table::try_from(Host::default()).expect("a table");
    let mut have: Vec<&str> = host.keys().map(String::as_str).collect();
    let mut want = keys::host_names();
    have.sort_unstable();
    want.sort_unstable();
    assert_eq!(have, want);
}

#[test]
fn the_example_in_the_printed_file_is_understood() {
    let text = default_file();
    let (_, example) = text.split_once("#[[registry.hosts]]\n").expect("an example");
    let lines: Vec<&str> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' '))
        .collect();
    let config = check(&format!("[[registry.hosts]]\n{}", lines.join("\n"))).expect("understood");
    let host = &config.registry.hosts[0];
    assert_eq!(host.host, "registry.example:5000");
    assert_eq!(host.mirrors, ["https://mirror.example/hub"]);
}

/// The page holds the generated table between two marks. `SPANDREL_UPDATE_DOCS=1 cargo test` writes it.
#[test]
fn the_page_is_up_to_date() {
    const BEGIN: &str = "<!-- keys: made from snapshotter/src/config/keys.rs -->\n";
    const END: &str = "<!-- keys: end -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let page = fs::read_to_string(path).expect("docs/configuration.md");
    let (head, rest) = page.split_once(BEGIN).expect("the mark before the keys");
    let (table, tail) = rest.split_once(END).expect("the mark behind the keys");
    if std::env::var_os("SPANDREL_UPDATE_DOCS").is_some() {
        fs::write(path, format!("{head}{BEGIN}{}{END}{tail}", documentation())).expect("written");
        return;
    }
    assert_eq!(table, documentation(), "run SPANDREL_UPDATE_DOCS=1 cargo test -p spandrel-snapshotter page");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for (text, name) in [
        ("adress = \"/x\"", "adress"),
        ("[log]\ncolour = true", "colour"),
        ("[nothing]", "nothing"),
        ("[[registry.hosts]]\nhost = \"a\"\ntls = true", "tls"),
        ("address = \"relative.sock\"", "address"),
        ("address = \"\"", "address"),
        (&format!("address = \"/{}\"", "x".repeat(107)), "address"),
        ("root = \"var/lib\"", "root"),
        ("root = \"/\"", "root"),
        ("root = \"/a/../b\"", "root"),
        ("root = \"/a:b\"", "root"),
        ("root = \"/a b\"", "root"),
        ("root = \"/a,b\"", "root"),
        ("root = \"/a\\\\b\"", "root"),
        (&format!("root = \"/{}\"", "x".repeat(256)), "root"),
        ("[log]\nlevel = \"loud\"", "log.level"),
        ("[log]\nlevel = \"\"", "log.level"),
        ("[log]\nlevel = \"info,x=loud\"", "log.level"),
        ("[log]\nformat = \"xml\"", "format"),
        ("[containerd]\naddress = \"tcp\"", "containerd.address"),
        ("[metrics]\naddress = \"localhost\"", "metrics.address"),
        ("[metrics]\naddress = \"9464\"", "metrics.address"),
        ("[index]\nmin_layer_size = \"10 MB\"", "min_layer_size"),
        ("[index]\nv1 = 1", "v1"),
        ("[fetch]\nread_timeout = \"0s\"", "fetch.read_timeout"),
        ("[fetch]\nresolve_timeout = \"0s\"", "fetch.resolve_timeout"),
        ("[fetch]\nread_timeout = 300", "read_timeout"),
        ("[fetch]\nconcurrency = 0", "fetch.concurrency"),
        ("[fetch]\ndownloads = 5000", "fetch.downloads"),
        ("[fetch]\nmemory = \"1MiB\"", "fetch.memory"),
        ("[disk]\nquota = \"0%\"", "disk.quota"),
        ("[disk]\nquota = \"101%\"", "quota"),
        ("[disk]\nunused_mark = \"a lot\"", "unused_mark"),
        ("[[registry.hosts]]\nplain_http = true", "registry.hosts.host"),
        ("[[registry.hosts]]\nhost = \"https://a\"", "registry.hosts.host"),
        ("[[registry.hosts]]\nhost = \"a\"\nmirrors = [\"b\"]", "registry.hosts.mirrors"),
        ("[[registry.hosts]]\nhost = \"a\"\nca_files = [\"b.pem\"]", "registry.hosts.ca_files"),
        ("root = 1\nroot = 2", "duplicate"),
    ] {
        let error = check(text).expect_err(text);
        assert!(error.0.contains(name), "{text}: {error}");
    }
}

#[test]
fn a_mirrors_password_isnt_repeated() {
    let text = "[[registry.hosts]]\nhost = \"a\"\nmirrors = [\"https://user:secret@b\"]";
    let error = check(text).expect_err("refused");
    assert!(!error.0.contains("secret"), "{error}");
}

#[test]
fn values_mean_what_they_say() {
    let config = check(
        "address = \"unix:///run/s.sock\"\n[log]\nlevel = \"warning\"\n[metrics]\naddress = \"127.0.0.1:9464\"\n\
         [containerd]\naddress = \"\"\n[index]\nmin_layer_size = 4096\n[fetch]\nread_timeout = \"90s\"",
    )
    .expect("understood");
    assert_eq!(config.address, Path::new("/run/s.sock"));
    assert_eq!(config.log.filter().expect("a filter").to_string(), "spandrel=warn,fuser=error,warn");
    assert_eq!(config.metrics.listen(), Ok(Some(Listen::Tcp(([127, 0, 0, 1], 9464).into()))));
    assert_eq!(config.containerd.address, Path::new(""));
    assert_eq!(config.index.min_layer_size, Size(4096));
    assert_eq!(config.fetch.read_timeout, Time(Duration::from_secs(90)));
    let unix = Metrics { address: "unix:///run/a.sock".to_owned() };
    assert_eq!(unix.listen(), Ok(Some(Listen::Unix("/run/a.sock".into()))));
    assert_eq!(Metrics { address: String::new() }.listen(), Ok(None));
}

#[test]
fn a_level_is_that_of_our_own_lines() {
    for (level, want) in [
        ("error", "spandrel=error,fuser=error,error"),
        ("info", "spandrel=info,fuser=error,info"),
        ("debug", "spandrel=debug,fuser=error,info"),
        ("trace", "spandrel=trace,fuser=error,info"),
        ("off", "off"),
        ("h2=debug,warn", "h2=debug,warn"),
    ] {
        let log = Log { level: level.to_owned(), ..Log::default() };
        assert_eq!(log.filter().expect(level).to_string(), want, "{level}");
    }
}

#[test]
fn flags_win_over_the_file_and_a_named_file_must_be_there() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("config.toml");
    fs::write(&path, "root = \"/from/file\"\naddress = \"/from/file.sock\"\n[log]\nlevel = \"debug\"")
        .expect("written");
    let mut overrides = Overrides { config: Some(path.clone()), ..Overrides::default() };
    overrides.root = Some("/from/flag".into());
    let config = Config::load(&overrides).expect("loaded");
    assert_eq!(
        (config.root.as_path(), config.address.as_path()),
        (Path::new("/from/flag"), Path::new("/from/file.sock"))
    );
    assert_eq!(config.log.level, "debug");
    overrides.log_level = Some("loud".to_owned());
    assert!(Config::load(&overrides).expect_err("no level").0.contains("log.level"));
    fs::remove_file(&path).expect("removed");
    let error = Config::load(&overrides).expect_err("missing");
    assert!(error.0.contains(&path.display().to_string()), "{error}");
}
