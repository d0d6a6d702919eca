// Keeps a WebRTC transport, and what is on it, through failures of the server's media side. The server then
// notifies `transportClosed {transportId, reason}`: nothing of the old transport can be revived, for nothing
// may be sent again under its keys. So a new one is made, with new producers and consumers.
//
// Needs nothing else of this page. With mediasoup-client:
//
//   const sending = new KeptTransport({
//     create: () => createSendTransport(),                  // a promise of mediasoup-client's transport
//     restore: (transport) => produceAllTracks(transport),  // what it had, once more
//   });
//   const transport = await sending.get();
//   // on each `transportClosed`:
//   sending.closed(data.transportId);
//   // when the connection to the server is lost, or the call ends:
//   sending.close();

// Milliseconds until the next try, doubled each time: a part of the server that failed is back within a
// second, and if it is not, its peers should not come all at once.
const FIRST_WAIT = 250;
const LONGEST_WAIT = 8000;

export class KeptTransport {
  #create;
  #restore;
  #problem;
  // A promise of the transport; null when there is none.
  #current = null;
  #ended = false;

  /**
   * `create()` gives a promise of a new transport. `restore(transport)` makes its producers or consumers again;
   * it is called for every transport but the first. `problem(error)` hears what went wrong on the way.
   */
  constructor({ create, restore, problem = () => {} }) {
    this.#create = create;
    this.#restore = restore;
    this.#problem = problem;
  }

  /** A promise of the transport. The first call makes it, and tries on until that succeeds or is refused. */
  get() {
    if (!this.#current) {
      const made = this.#make();
      this.#current = made;
      // A failure is told to those who wait for it now; the next one tries anew.
      made.catch(() => { if (this.#current === made) this.#current = null; });
    }
    return this.#current;
  }

  /** The server has closed a transport. If it is ours, a new one takes its place; resolves when it has. */
  async closed(transportId) {
    const old = await this.#current?.catch(() => null);
    if (this.#ended || old?.id !== transportId) return;
    this.#current = null;
    // Ends its producers and consumers, here only: the server has forgotten them.
    old.close();
    try {
      await this.#restore(await this.get());
    } catch (error) {
      // If it was because this one was closed too, the next call is on its way.
      if (!this.#ended) this.#problem(error);
    }
  }

  /** It is not wanted any more. */
  close() {
    this.#ended = true;
    this.#current?.then((transport) => transport.close(), () => {});
    this.#current = null;
  }

  async #make() {
    for (let wait = FIRST_WAIT; !this.#ended; wait = Math.min(2 * wait, LONGEST_WAIT)) {
      try {
        return await this.#create();
      } catch (error) {
        // What is refused (4xx) is refused the next time too.
        if (this.#ended || (error.code >= 400 && error.code < 500)) throw error;
        this.#problem(error);
      }
      // Up to half as long again, at random: see above.
      await new Promise((resolve) => setTimeout(resolve, wait * (1 + Math.random() / 2)));
    }
    throw new Error('the transport is not wanted any more');
  }
}
