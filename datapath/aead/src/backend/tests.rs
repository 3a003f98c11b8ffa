use super::*;

#[test]
fn aead_the_self_test_passes_for_every_back_end_of_this_processor() {
    for backend in Backend::ALL {
        let result = self_test::run(|batch| backend.seal(batch), |batch| backend.open(batch));
        assert_eq!(result, Ok(()), "{backend}");
    }
}

/// Goal: start falls back and says so. Method: every combination of what may be wrong.
#[test]
fn aead_start_falls_back_and_says_from_what() {
    let auto = |avx512, avx2| {
        Choice::make(None, |backend| match backend {
            Backend::Avx512 => avx512,
            Backend::Avx2 => avx2,
            Backend::Portable | Backend::Library => panic!("{backend} is not a candidate"),
        })
    };
    let fine = Ok(());
    let absent = Err(Reason::Unsupported);
    let wrong = Err(Reason::Defective(Defect::Forged));
    let slower = Err(Reason::Slower);
    assert_eq!(auto(fine, fine).backend, Backend::Avx512);
    assert_eq!(auto(fine, fine).refused, []);
    let choice = auto(wrong, fine);
    assert_eq!(choice.backend, Backend::Avx2);
    let said: Vec<_> = choice.refused.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["avx512: opened a forged message"]);
    let choice = auto(absent, wrong);
    assert_eq!(choice.backend, Backend::Library);
    let said: Vec<_> = choice.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["avx512: this processor has not what it needs", "avx2: opened a forged message"]
    );
    let choice = auto(absent, slower);
    assert_eq!(choice.backend, Backend::Library);
    assert_eq!(
        choice.refused.last().map(ToString::to_string).as_deref(),
        Some("avx2: slower than the library here")
    );
    assert!(!choice.is_disobedient(), "nobody asked for anything");
}

#[test]
fn aead_a_forced_back_end_is_taken_or_the_library_and_that_is_said() {
    for backend in Backend::ALL {
        let wanted = Some(backend.name().parse());
        assert_eq!(wanted, Some(Ok(backend)));
        let choice = Choice::make(wanted.clone(), |_| Ok(()));
        assert_eq!((choice.backend, choice.is_disobedient()), (backend, false));
        let choice = Choice::make(wanted, |_| Err(Reason::Unsupported));
        assert_eq!(choice.backend, Backend::Library);
        assert_eq!(choice.is_disobedient(), backend != Backend::Library);
        assert_eq!(choice.refused, [Refusal { backend, reason: Reason::Unsupported }]);
    }
    let choice = Choice::make(Some("sse9".parse()), |_| Ok(()));
    assert!(choice.is_disobedient());
    let unknown = "sse9".parse::<Backend>().unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "no AEAD back end \"sse9\"; there are avx512, avx2, portable and library"
    );
}

/// With `BULKHEAD_AEAD` set, all tests of the workspace run on that back end: then this one must
/// find it at work, or the run would prove nothing.
#[test]
fn aead_the_back_end_of_this_process_is_the_one_that_was_asked_for() {
    let choice = choice();
    assert!(!choice.is_disobedient(), "{choice:?}");
    if choice.wanted.is_none() {
        for refusal in &choice.refused {
            assert!(!matches!(refusal.reason, Reason::Defective(_)), "{refusal}");
        }
    }
}
