use super::*;
use std::collections::VecDeque;

/// A device file whose messages the test writes. As ipmi-rs's `File`, it takes one message for each `recv` and checks
/// its number.
#[derive(Default)]
struct FakeFile {
    sequence: i64,
    queue: VecDeque<Message>,
    /// What the BMC puts into the queue for each question; numbers are relative to it.
    answers: VecDeque<Vec<Message>>,
    asked: Vec<(u8, u8, Vec<u8>)>,
}

#[derive(Clone)]
enum Message {
    Answer { back: i64, net_fn: u8, command: u8, data: Vec<u8> },
    Error(fn() -> io::Error),
}

fn answer(command: u8, data: &[u8]) -> Message {
    Message::Answer { back: 0, net_fn: 0x2D, command, data: data.to_vec() }
}

fn late(back: i64, data: &[u8]) -> Message {
    Message::Answer { back, net_fn: 0x2D, command: 2, data: data.to_vec() }
}

impl IpmiConnection for FakeFile {
    type SendError = io::Error;
    type RecvError = io::Error;
    type Error = io::Error;

    fn send(&mut self, request: &mut Request) -> io::Result<()> {
        self.sequence += 1;
        self.asked.push((request.netfn_raw(), request.cmd(), request.data().to_vec()));
        self.queue.extend(self.answers.pop_front().unwrap_or_default());
        Ok(())
    }

    fn recv(&mut self) -> io::Result<Response> {
        match self.queue.pop_front() {
            None => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            Some(Message::Error(error)) => Err(error()),
            Some(Message::Answer { back, .. }) if back != 0 => {
                Err(io::Error::other("Invalid sequence number on response"))
            }
            Some(Message::Answer { net_fn, command, data, .. }) => {
                let message = ipmi_rs::connection::Message::new_raw(net_fn, command, data);
                Response::new(message, self.sequence).ok_or_else(|| io::Error::other("NotEnoughData"))
            }
        }
    }

    fn send_recv(&mut self, _: &mut Request) -> io::Result<Response> {
        unreachable!("messages are matched by the caller")
    }
}

fn device(answers: &[&[Message]]) -> Device<FakeFile> {
    let answers = answers.iter().map(|one| one.to_vec()).collect();
    Device::new(FakeFile { answers, ..FakeFile::default() }, Duration::from_secs(5))
}

fn command() -> Command {
    Command::new(0x2C, 2, &[0xDC, 1, 0, 0])
}

#[test]
fn an_answer_of_network_function_2c_is_taken() {
    let mut device = device(&[&[answer(2, &[0, 0xDC, 7])]]);
    assert_eq!(device.execute(&command()), Ok(vec![0xDC, 7]));
    assert_eq!(device.connection.asked, [(0x2C, 2, vec![0xDC, 1, 0, 0])]);
}

#[test]
fn a_late_answer_is_never_taken_for_the_next_ones() {
    let mut device = device(&[&[], &[late(1, &[0, 1]), answer(2, &[0, 2])], &[late(9, &[0, 9]), late(8, &[0, 8])]]);
    assert_eq!(device.execute(&command()), Err(LinkError::Silent(Duration::from_secs(5))));
    assert_eq!(device.execute(&command()), Ok(vec![2]));
    assert!(matches!(device.execute(&command()), Err(LinkError::Wrong(why)) if why.contains("sequence")));
}

#[test]
fn an_answer_to_something_else_is_none() {
    let other = [answer(1, &[0, 1]), Message::Answer { back: 0, net_fn: 0x07, command: 2, data: vec![0, 1] }];
    assert!(matches!(device(&[&other]).execute(&command()), Err(LinkError::Wrong(why)) if why.contains("07h 02h")));
    assert_eq!(device(&[&[other[0].clone(), answer(2, &[0, 5])]]).execute(&command()), Ok(vec![5]));
    // Not even a completion code.
    assert!(matches!(device(&[&[answer(2, &[])]]).execute(&command()), Err(LinkError::Wrong(_))));
}

#[test]
fn a_bmc_that_only_chatters_is_given_up() {
    let chatter = vec![answer(9, &[0]); 1000];
    assert!(matches!(device(&[&chatter]).execute(&command()), Err(LinkError::Wrong(_))));
}

#[test]
fn errors_of_the_driver_break_the_connection_and_signals_do_not() {
    let gone: Message = Message::Error(|| io::Error::from_raw_os_error(libc::ENODEV));
    assert!(
        matches!(device(&[&[gone]]).execute(&command()), Err(LinkError::Broken(why)) if why.contains("No such device"))
    );
    let signal = Message::Error(|| io::Error::from_raw_os_error(libc::EINTR));
    assert_eq!(device(&[&[signal, answer(2, &[0, 5])]]).execute(&command()), Ok(vec![5]));
}

#[test]
fn every_completion_code_is_a_refusal_in_words() {
    for code in 1..=0xFF {
        let mut device = device(&[&[answer(2, &[code])]]);
        let error = device.execute(&command()).unwrap_err();
        assert_eq!(error, LinkError::Refused(code));
        let words = error.to_string();
        assert!(
            words.starts_with("the BMC ") && words.contains(&format!("{code:02X}h")) && words.len() < 120,
            "{words}"
        );
    }
}
