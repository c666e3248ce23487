// Serves by Node's own http. By itself Node dies of TERM at once: here it finishes what is in flight first.
//
//     sidecar dev --port 8080 -- node server.js
const http = require("http")

const greeting = process.env.GREETING || "hello"
const generation = process.env.SERVER_STARTER_GENERATION
let leaving = false

const server = http.createServer((request, response) => {
  const seconds = request.url.startsWith("/slow?") ? Number(request.url.slice(6)) : 0
  setTimeout(() => {
    if (leaving) response.setHeader("Connection", "close") // or its client would keep this process alive as long as it asks on
    response.end(`${greeting} from generation ${generation}\n`)
  }, seconds * 1000)
})

server.listen({ fd: 3 })
process.on("SIGTERM", () => {
  leaving = true
  server.close() // it no longer accepts, and closes what is idle; the process ends with the last connection
})
