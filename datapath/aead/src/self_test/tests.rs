use super::*;

fn seal_all(batch: &mut [Seal<'_>]) {
    batch.iter_mut().for_each(library::seal);
}

fn open_all(batch: &mut [Open<'_>]) {
    batch.iter_mut().for_each(library::open);
}

#[test]
fn aead_the_self_test_finds_each_kind_of_defect_in_any_place() {
    assert_eq!(run(seal_all, open_all), Ok(()));
    for place in 0..BATCH_MAX {
        let wrong_tag = |batch: &mut [Seal<'_>]| {
            seal_all(batch);
            batch[place].tag[15] ^= 1;
        };
        assert_eq!(run(wrong_tag, open_all), Err(Defect::Sealed));
        let wrong_text = |batch: &mut [Seal<'_>]| {
            seal_all(batch);
            if let Some(last) = batch[place].text.last_mut() {
                *last ^= 1;
            }
        };
        assert_eq!(run(wrong_text, open_all), Err(Defect::Sealed));
        let refuses = |batch: &mut [Open<'_>]| {
            open_all(batch);
            batch[place].opened = false;
        };
        assert_eq!(
            run(seal_all, refuses),
            Err(if place % 3 == 1 { continue } else { Defect::Opened })
        );
        let garbles = |batch: &mut [Open<'_>]| {
            open_all(batch);
            if let Some(last) = batch[place].text.last_mut() {
                *last ^= 1;
            }
        };
        assert_eq!(run(seal_all, garbles), Err(Defect::Opened));
    }
    let believes_all = |batch: &mut [Open<'_>]| {
        open_all(batch);
        batch.iter_mut().for_each(|message| message.opened = true);
    };
    assert_eq!(run(seal_all, believes_all), Err(Defect::Forged));
}

#[test]
fn aead_the_self_test_finds_plaintext_that_was_left() {
    // Decrypts before it verifies, and leaves what it has.
    let leaks = |batch: &mut [Open<'_>]| {
        for message in batch.iter_mut() {
            let mut tag = [0; 16];
            let ciphertext = message.text.to_vec();
            library::open(message);
            if !message.opened {
                message.text.copy_from_slice(&ciphertext);
                let (key, nonce) = (message.key, message.nonce);
                library::seal(&mut Seal::new(key, nonce, message.text, &mut tag));
            }
        }
    };
    assert_eq!(run(seal_all, leaks), Err(Defect::Forged));
}
