use super::*;

fn question(arguments: &[&str]) -> Result<Question, String> {
    let owned: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    match super::super::read_explain(&owned).map_err(|refusal| refusal.message)? {
        super::super::Command::Explain(question) => Ok(*question),
        other => panic!("{other:?}"),
    }
}

fn list(arguments: &[&str], domains: &[&str]) -> Vec<String> {
    let domains: Vec<Name> = domains.iter().map(|name| Name::parse(name).unwrap()).collect();
    let (zone, question) = (Name::parse("k8s.test").unwrap(), question(arguments).unwrap());
    let search = [cluster_suffixes(&question.namespace, &zone), domains].concat();
    let place = Place { zone, search, listen: 0, route: None, file: None };
    let names = place.names(&question.name, question.absolute);
    names.iter().map(|name| name.as_ref().map_or("-".to_owned(), Name::to_string)).collect()
}

#[test]
fn names_are_asked_for_in_the_order_of_the_list() {
    let short = ["db.shop.svc.k8s.test.", "db.svc.k8s.test.", "db.k8s.test.", "db.corp.test.", "db."];
    assert_eq!(list(&["db", "-ns", "shop"], &["corp.test"]), short);
    assert_eq!(list(&["-ns", "shop", "db"], &["corp.test"]), short, "the name may come last");
    assert_eq!(list(&["db.", "-ns", "shop"], &[]), ["db."]);
    assert_eq!(list(&["a.b.c.d.e.f", "-ns", "shop"], &[])[..2], ["a.b.c.d.e.f.", "a.b.c.d.e.f.shop.svc.k8s.test."]);
    let long = ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(55)].join(".");
    let names = list(&[&long, "-ns", "shop"], &[]);
    assert_eq!((names[0].as_str(), names[3].len()), ("-", long.len() + 1));
}

#[test]
fn what_cannot_be_explained_is_said() {
    let long = vec!["abcdefghijk"; 22].join(".");
    for (arguments, part) in [
        (&[][..], "say one name"),
        (&["a", "b", "-ns", "shop"], "say one name"),
        (&["a"], "say the pod's namespace"),
        (&["a", "-ns", "a.b"], "\"a.b\" is no namespace"),
        (&["a", "-ns", ""], "\"\" is no namespace"),
        (&["a", "-ns", "a_b"], "\"a_b\" is no namespace"),
        (&[long.as_str(), "-ns", "shop"], "more than 255 octets"),
        (&["a..b", "-ns", "shop"], "\"a..b\" is no name"),
        (&[".", "-ns", "shop"], "the root"),
        (&["a", "-ns", "shop", "-type", "Z"], "-type: \"Z\" is no type"),
        (&["a", "-ns", "shop", "-search", "x,y..z"], "-search: \"y..z\" is no name"),
        (&["a", "-nss", "shop"], "the nearest one is -ns "),
    ] {
        let error = question(arguments).unwrap_err();
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}
