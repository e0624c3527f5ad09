//! Which extents are compared, with what, and what is refused.

use super::*;

fn owner(least: i64, most: i64) -> Extent {
    Extent {
        least,
        most,
        dimension: Dimension::Own(1),
    }
}

fn follower(least: i64, most: i64) -> Extent {
    Extent {
        dimension: Dimension::Shared,
        ..owner(least, most)
    }
}

const FIXED: Extent = Extent {
    least: 30,
    most: 30,
    dimension: Dimension::Shared,
};

/// Inputs called `a`, `b` and so on.
fn limits(inputs: &[(bool, &[Extent])]) -> Result<Limits, String> {
    let names = ["a", "b", "c"];
    let inputs: Vec<Input<'_>> = inputs
        .iter()
        .zip(names)
        .map(|((has_rows, extents), name)| Input {
            name,
            has_rows: *has_rows,
            extents,
        })
        .collect();
    Limits::of(&inputs).map_err(|error| error.to_string())
}

#[test]
fn rows_may_be_one_and_nothing_else_may_be_less_than_was_compiled() {
    let found = limits(&[(true, &[owner(2, 1_024), FIXED])]).unwrap();
    assert_eq!(found.check(&[vec![1, 30]]), Ok(()));
    assert_eq!(found.check(&[vec![1_024, 30]]), Ok(()));
    for wrong in [vec![1_025, 30], vec![0, 30], vec![2, 31], vec![2]] {
        let text = found.check(std::slice::from_ref(&wrong)).unwrap_err();
        let expected = format!("'a' has the shape {wrong:?}, the package was compiled for [1 to 1024, 30]");
        assert_eq!(text, expected);
    }
    let inner = limits(&[(true, &[owner(2, 1_024), owner(2, 64)])]).unwrap();
    assert!(inner.check(&[vec![1, 2]]).is_ok() && inner.check(&[vec![1, 1]]).is_err());
    let alone = limits(&[(false, &[owner(2, 1_024), FIXED])]).unwrap();
    assert!(alone.check(&[vec![2, 30]]).is_ok() && alone.check(&[vec![1, 30]]).is_err());
}

#[test]
fn an_extent_that_owns_nothing_must_equal_the_owner_with_its_bounds() {
    let a = [owner(2, 1_024), owner(2, 64)];
    let b = [follower(2, 1_024), follower(2, 64)];
    let c = [follower(2, 64)];
    let found = limits(&[(true, &a), (true, &b), (false, &c)]).unwrap();
    let call = |a: [i64; 2], b: [i64; 2], c: i64| found.check(&[a.to_vec(), b.to_vec(), vec![c]]);
    assert_eq!(call([3, 7], [3, 7], 7), Ok(()));
    assert_eq!(
        call([3, 7], [3, 6], 7).unwrap_err(),
        "'b' has the extent 6 at place 1, where it must have that of 'a' at place 1, which is 7"
    );
    assert!(
        call([3, 7], [2, 7], 7)
            .unwrap_err()
            .contains("'b' has the extent 2 at place 0")
    );
    assert!(
        call([3, 7], [3, 7], 8)
            .unwrap_err()
            .contains("'c' has the extent 8 at place 0")
    );
}

#[test]
fn rows_are_equal_even_where_the_code_has_a_dimension_for_each() {
    let found = limits(&[(true, &[owner(2, 8)]), (true, &[owner(2, 16)])]).unwrap();
    assert_eq!(found.check(&[vec![3], vec![3]]), Ok(()));
    assert!(found.check(&[vec![3], vec![4]]).is_err());
    // Both owners are the rows, so this one is as well.
    let third = limits(&[
        (true, &[owner(2, 8)]),
        (true, &[owner(2, 8)]),
        (false, &[follower(2, 8)]),
    ])
    .unwrap();
    assert!(third.check(&[vec![3], vec![3], vec![3]]).is_ok() && third.check(&[vec![3], vec![3], vec![2]]).is_err());
}

#[test]
fn where_no_owner_or_several_could_be_meant_the_package_is_refused() {
    let twice = limits(&[(true, &[owner(2, 8), owner(2, 8)]), (true, &[follower(2, 8), FIXED])]).unwrap_err();
    assert!(
        twice.contains("extent 0 of input 'b' (2 to 8) may be any of several") && twice.contains("torch.export.Dim"),
        "{twice}"
    );
    let none = limits(&[(true, &[owner(2, 8)]), (true, &[follower(4, 16)])]).unwrap_err();
    assert!(none.contains("computes extent 0 of input 'b' (4 to 16)"), "{none}");
}

#[test]
fn a_multiple_of_a_dimension_must_be_one() {
    let blocks = Extent {
        dimension: Dimension::Own(32),
        ..owner(64, 256)
    };
    let found = limits(&[(false, &[blocks]), (false, &[follower(64, 256)])]).unwrap();
    assert_eq!(found.check(&[vec![96], vec![96]]), Ok(()));
    let text = found.check(&[vec![97], vec![97]]).unwrap_err();
    assert!(
        text.contains("'a' has the shape [97]") && text.contains("[64 to 256 in steps of 32]"),
        "{text}"
    );
    assert!(found.check(&[vec![96], vec![64]]).is_err());
    let odd = Extent {
        dimension: Dimension::Own(49),
        ..owner(49, 490)
    };
    let found = limits(&[(false, &[odd])]).unwrap();
    assert_ne!(1.0 / 49.0 * 49.0, 1.0, "the code would come to no dimension at all");
    assert!(
        found.check(&[vec![49]]).is_err() && found.check(&[vec![98]]).is_err() && found.check(&[vec![245]]).is_ok()
    );
    let nothing = Extent {
        dimension: Dimension::Own(0),
        ..blocks
    };
    assert!(limits(&[(false, &[nothing])]).unwrap().check(&[vec![64]]).is_err());
}
