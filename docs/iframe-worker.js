// Search in pages that are opened from a folder. Browsers start no worker from file://, so there the search runs in a hidden frame.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      this.loaded = new Promise(resolve => { frame.onload = resolve })
      frame.srcdoc = `<script>window.postMessage = message => parent.postMessage({ search: message }, "*")</scr` + `ipt><script src="${url}"></scr` + `ipt>`
      document.body.append(frame)
      this.frame = frame
      addEventListener("message", event => {
        if (event.source === frame.contentWindow && event.data.search) {
          const answer = new MessageEvent("message", { data: event.data.search })
          this.dispatchEvent(answer)
          if (this.onmessage) this.onmessage(answer)
        }
      })
    }
    postMessage(message) {
      this.loaded.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: message })))
    }
    terminate() { this.frame.remove() }
  }
}
