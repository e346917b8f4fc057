// Writes what a URL holds to standard output, by Node's own fetch.

const response = await fetch(process.argv[2]);
if (!response.ok) throw new Error(`answered with ${response.status}`);
process.stdout.write(Buffer.from(await response.arrayBuffer()));
