// The operations of openapi.json on the page docs/openapi.md, to read: no service is behind this site.
SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null, // else the description's address would be sent to a server of the makers
  deepLinking: true,
  supportedSubmitMethods: [],
  presets: [SwaggerUIBundle.presets.apis],
});
// Swagger UI has a dark mode of its own, which follows the site's.
const follow = () => document.documentElement.classList.toggle("dark-mode", document.body.dataset.mdColorScheme === "slate");
new MutationObserver(follow).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
follow();
