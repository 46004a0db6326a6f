// Bundles an example as the build of a front end does: node bundle.mjs ENTRY OUTPUT [browser | node]
import { readFile } from "node:fs/promises";
import { build } from "esbuild";
import { compileScript, parse } from "vue/compiler-sfc";

const [entry, outfile, platform = "browser"] = process.argv.slice(2);

// As @vitejs/plugin-vue.
const vue = {
  name: "vue",
  setup({ onLoad }) {
    onLoad({ filter: /\.vue$/ }, async ({ path }) => {
      const { descriptor } = parse(await readFile(path, "utf8"), { filename: path });
      const { content } = compileScript(descriptor, { id: "example", inlineTemplate: true });
      return { contents: content, loader: "js" };
    });
  },
};

// As babel-plugin-relay: what is tagged becomes what the compiler made of it.
const relay = {
  name: "relay",
  setup({ onLoad }) {
    onLoad({ filter: /\/relay\/[^/]+\.js$/ }, async ({ path }) => {
      const names = [];
      const text = (await readFile(path, "utf8")).replace(/graphql`\s*\w+ (\w+)[^`]*`/g, (_, name) => {
        names.push(name);
        return name;
      });
      const imports = names.map((name) => `import ${name} from "./__generated__/${name}.graphql.js";`);
      return { contents: [...imports, text].join("\n"), loader: "js" };
    });
  },
};

await build({
  entryPoints: [entry],
  outfile,
  platform,
  bundle: true,
  format: "esm",
  logLevel: "warning",
  define: { "process.env.NODE_ENV": '"production"', __VUE_OPTIONS_API__: "true", __VUE_PROD_DEVTOOLS__: "false", __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false" },
  plugins: [vue, relay],
});
