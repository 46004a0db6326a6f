// GraphQL over HTTP by its specification: prints every audit with its outcome, as JSON.
import { auditServer } from "graphql-http";

const results = await auditServer({ url: process.env.URL });
const outcomes = results.map(({ id, name, status, reason }) => ({ id, name, status, reason }));
console.log(JSON.stringify(outcomes));
